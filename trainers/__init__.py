"""The training loop, the densification strategies, and one file a method."""
