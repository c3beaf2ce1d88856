"""Ways for a camera to go: orbits, key frames joined smoothly, and the file they are kept in."""

from kinosplat.render.paths.file import load_camera_path, save_camera_path
from kinosplat.render.paths.keyframes import CameraPath, Keyframe
from kinosplat.render.paths.orbit import look_at_point, orbit

__all__ = ["CameraPath", "Keyframe", "load_camera_path", "look_at_point", "orbit", "save_camera_path"]
