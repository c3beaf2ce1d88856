"""The stage as a Blender scene, and Blender's cameras from OpenCV matrices."""

from pathlib import Path

import bpy
import numpy as np
from make_tabletop.stage import Thing
from mathutils import Matrix

SENSOR = 36.0
"""Millimetres across; any value does, as focal lengths are given in pixels."""
OPENCV_TO_BLENDER = np.diag([1.0, -1.0, -1.0, 1.0])


class Studio:
    """A Blender scene of the given things, lit and ready to render."""

    def __init__(self, things: list[Thing], samples: int, transparent: bool = False):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self._things = things
        self._objects = {thing.name: _add(thing) for thing in things}
        _light()
        _settings(samples, transparent)
        self._camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        bpy.context.scene.collection.objects.link(self._camera)
        bpy.context.scene.camera = self._camera

    def set_time(self, time: float) -> None:
        """Moves everything to where it is at `time` (seconds)."""
        for thing in self._things:
            target = self._objects[thing.name]
            target.hide_render = not thing.is_present(time)
            target.matrix_world = Matrix(thing.motion(time).tolist())
            if thing.deform is not None:
                moved = thing.deform(thing.mesh.vertices, time).astype(np.float32)
                target.data.vertices.foreach_set("co", moved.ravel())
                target.data.update()

    def render(self, path: Path, world_to_camera: np.ndarray, K: np.ndarray, width: int, height: int) -> None:
        """One picture (PNG) of the present moment; the principal point has to be the centre."""
        scene = bpy.context.scene
        scene.render.resolution_x, scene.render.resolution_y = width, height
        lens = self._camera.data
        lens.sensor_fit, lens.sensor_width = "HORIZONTAL", SENSOR
        lens.lens = float(K[0, 0]) * SENSOR / width
        lens.clip_start, lens.clip_end = 0.05, 100.0
        self._camera.matrix_world = Matrix((np.linalg.inv(world_to_camera) @ OPENCV_TO_BLENDER).tolist())
        # Written beside and renamed, so that an interrupted render leaves no half picture behind.
        draft = path.with_name(path.stem + ".draft.png")
        scene.render.filepath = str(draft)
        bpy.ops.render.render(write_still=True)
        draft.replace(path)


def _add(thing: Thing) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(thing.name)
    mesh.from_pydata(thing.mesh.vertices.tolist(), [], thing.mesh.triangles.tolist())
    layer = mesh.uv_layers.new(name="uv")
    layer.data.foreach_set("uv", thing.mesh.corner_uv.astype(np.float32).ravel())
    mesh.polygons.foreach_set("use_smooth", np.ones(len(thing.mesh.triangles), dtype=bool))
    mesh.materials.append(_material(thing))
    mesh.update()
    target = bpy.data.objects.new(thing.name, mesh)
    bpy.context.scene.collection.objects.link(target)
    return target


def _material(thing: Thing) -> bpy.types.Material:
    height, width, _ = thing.picture.shape
    image = bpy.data.images.new(thing.name, width, height)
    image.pixels.foreach_set(
        np.concatenate([thing.picture, np.ones((height, width, 1))], -1).astype(np.float32).ravel()
    )
    image.pack()
    material = bpy.data.materials.new(thing.name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = thing.roughness
    shader.inputs["Coat Weight"].default_value = thing.coat
    shader.inputs["Coat Roughness"].default_value = 0.12
    shader.inputs["Specular IOR Level"].default_value = 0.5 if thing.roughness < 0.9 else 0.0
    source = nodes.new("ShaderNodeTexImage")
    source.image = image
    source.extension = "EXTEND"
    links.new(source.outputs["Color"], shader.inputs["Base Color"])
    return material


def _light() -> None:
    """A warm key light, a cool wide fill, and a pale surrounding."""
    _area("key", (1.5, -1.1, 2.6), 0.8, 125.0, (1.0, 0.93, 0.82))
    _area("fill", (-2.2, 1.4, 2.2), 2.6, 26.0, (0.82, 0.90, 1.0))
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (0.80, 0.88, 1.0, 1.0)
    background.inputs["Strength"].default_value = 0.36


def _area(name: str, position: tuple[float, float, float], size: float, watts: float, tint: tuple[float, ...]) -> None:
    light = bpy.data.lights.new(name, "AREA")
    light.shape, light.size, light.energy, light.color = "DISK", size, watts, tint
    lamp = bpy.data.objects.new(name, light)
    towards = -np.array(position) / np.linalg.norm(position)
    side = np.cross(towards, (0.0, 0.0, 1.0))
    side /= np.linalg.norm(side)
    frame = np.eye(4)
    frame[:3, :3] = np.stack([side, np.cross(side, towards), -towards], -1)
    frame[:3, 3] = position
    lamp.matrix_world = Matrix(frame.tolist())
    bpy.context.scene.collection.objects.link(lamp)


def _settings(samples: int, transparent: bool) -> None:
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = transparent
    scene.render.use_persistent_data = True
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA" if transparent else "RGB"
    scene.view_settings.view_transform = "Standard"
    scene.view_settings.exposure = 0.2
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.samples = samples
    cycles.use_adaptive_sampling = False
    cycles.seed = 1
    cycles.max_bounces = 4
    cycles.diffuse_bounces = 3
    cycles.glossy_bounces = 3
    cycles.caustics_reflective = False
    cycles.caustics_refractive = False
    # Bright fireflies would survive the denoiser as blotches.
    cycles.sample_clamp_indirect = 4.0
    cycles.use_denoising = True
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
