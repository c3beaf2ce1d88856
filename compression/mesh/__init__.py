"""Surfaces: from Gaussians by fusing rendered depth, from a field by marching cubes; measured as DTU does."""
