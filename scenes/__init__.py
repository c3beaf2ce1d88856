"""Data in: one small reader a format, one Scene type out."""

from kinosplat.scenes.frame_cache import free_memory_bytes
from kinosplat.scenes.frames import FrameLoader, LoadedBatch, LoadedFrame
from kinosplat.scenes.load import find_scene, load_scene
from kinosplat.scenes.options import LoadOptions
from kinosplat.scenes.points import first_points
from kinosplat.scenes.sampler import ViewSampler
from kinosplat.scenes.scene import ImageSource, PointCloud, Scene, Similarity, View

__all__ = [
    "FrameLoader",
    "ImageSource",
    "LoadOptions",
    "LoadedBatch",
    "LoadedFrame",
    "PointCloud",
    "Scene",
    "Similarity",
    "View",
    "ViewSampler",
    "find_scene",
    "first_points",
    "free_memory_bytes",
    "load_scene",
]
