"""Calibrated photos or multi-view video in, a 3D or 4D scene out."""

__version__ = "0.1.0"
