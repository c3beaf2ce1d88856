"""Frames a second of the fused field renderer, and where its time goes.

    python benchmarks/field_draw.py --device cuda

The field is an object that nobody had to learn: a hollow sphere of occupied cells, random features, and densities at
which a ray ends after a handful of samples (--thickness: their typical optical thickness). What a sample costs does not
depend on what is stored.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.field import native_fused, reference
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.marching import OccupiedCells

RESOLUTION = 128
SIZES = {"800x800": (800, 800), "1080p": (1920, 1080), "4K": (3840, 2160)}


def make_object(device: torch.device, thickness: float) -> tuple[native_fused.PreparedField, Tensor, StepRule]:
    """The field, its occupancy bits, and the steps."""
    generator = torch.Generator(device).manual_seed(0)

    def network(*widths: int) -> list[Tensor]:
        return [
            torch.randn(n_out, n_in, generator=generator, device=device) * (2 / n_in) ** 0.5
            for n_in, n_out in pairwise(widths)
        ]

    layout, space, rule = GridLayout(), Space(), StepRule()
    table = torch.randn(layout.n_entries, 2, generator=generator, device=device) * 0.3
    density, colour = network(32, 64, 16), network(32, 64, 64, 3)
    # A positive row gives positive log densities; then their mean is brought to the wanted one.
    density[-1][0].abs_()
    places = torch.rand(4096, 3, generator=generator, device=device)
    outputs = reference.mlp(reference.encode(places, table, layout), density)[:, 0]
    step = rule.limits(space, RESOLUTION)[0]
    density[-1][0] *= torch.log(torch.tensor(thickness / step)).item() / outputs.mean()
    field = native_fused.PreparedField(layout, table, density, colour, direction_degrees=4)

    i = torch.arange(RESOLUTION**3, device=device)
    places = torch.stack([i % RESOLUTION, i // RESOLUTION % RESOLUTION, i // RESOLUTION**2], dim=1)
    from_centre = (places - (RESOLUTION - 1) / 2).norm(dim=1)
    bits = reference.pack_bits((from_centre > 46) & (from_centre < 50))
    return field, OccupiedCells(bits, space, rule, RESOLUTION)


def view(width: int, height: int) -> Camera:
    """From outside; the sphere's diameter is about 0.8 of the picture's height."""
    f = 1.1 * height
    K = torch.tensor([[f, 0.0, width / 2], [0.0, f, height / 2], [0.0, 0.0, 1.0]])
    position = torch.tensor([1.2, -0.8, -1.8])
    return look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), K=K, width=width, height=height)


def main() -> None:
    """Print one line a resolution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--thickness", type=float, default=1.0)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    field, cells = make_object(device, arguments.thickness)

    for name in arguments.sizes:
        camera = view(*SIZES[name])

        def draw(stages: bool = False, camera: Camera = camera) -> native_fused.FieldPicture:
            return native_fused.draw(field, cells, camera, (1.0, 1.0, 1.0), near=0.05, as_bytes=True, stages=stages)

        picture = draw()
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(arguments.frames):
            picture = draw()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - begin) / arguments.frames
        n_rays, n_samples = int(picture.n_rays), int(picture.n_samples)
        print(
            f"{name}: {seconds * 1e3:.2f} ms, {1 / seconds:.1f} frames/s, {n_rays / 1e6:.2f} M rays meet something, "
            f"{n_samples / max(1, n_rays):.1f} samples each, {n_samples / seconds / 1e9:.3f} G samples/s"
        )
        if device.type == "cuda":
            shares = native_fused.stage_shares(draw(stages=True))
            print("   " + ", ".join(f"{stage} {share:.1%}" for stage, share in shares.items()))


if __name__ == "__main__":
    main()
