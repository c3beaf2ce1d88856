"""What can be rendered and how: cameras, Gaussians, the rasterizer and its plain-torch reference."""
