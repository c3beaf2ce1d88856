"""Radiance fields on a multi-resolution hash grid: encoding, networks, marching, compositing, and their reference."""
