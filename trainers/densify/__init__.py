"""Strategies that decide how many Gaussians there are and where: one file each."""
