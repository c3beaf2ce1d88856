"""Exports are read and drawn by two libraries for the web that nobody here wrote: Spark and Babylon.js, in chromium.

They stand in a folder of npm packages that $KINOSPLAT_NODE_MODULES names; without it these tests are skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from viewer.chromium import CHROMIUM, FLAGS, MISSING

from compression.test_formats import POSITION_STEP, cloud, matched, picture
from kinosplat.compression.formats import FORMATS, ExportFormat, export_gaussians
from kinosplat.compression.formats.packing import dc_of, logit
from kinosplat.compression.formats.splat import ROW, read_splat
from kinosplat.render import Gaussians
from kinosplat.render.losses import psnr

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
PACKAGES = "three @sparkjsdev/spark @babylonjs/core @babylonjs/loaders @adobe/spz fflate"
NODE_MODULES = Path(os.environ.get("KINOSPLAT_NODE_MODULES", ""))
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason=MISSING),
    pytest.mark.skipif(
        not os.environ.get("KINOSPLAT_NODE_MODULES"),
        reason=f"set KINOSPLAT_NODE_MODULES to the node_modules of: npm install {PACKAGES}",
    ),
]
PAGES = Path(__file__).parent / "pages"
ORIGIN = "http://reader.test"
UNPKG = re.compile(r"https://unpkg\.com/((?:@[^/]+/)?[^/@]+)(?:@[^/]+)?/(.*)")
"""Babylon fetches its decoders from there; the test hands it the packages' files."""
TYPES = {".js": "text/javascript", ".html": "text/html", ".wasm": "application/wasm"}
VIEW = {"width": 128, "height": 96, "focal": 130, "distance": 8}
"""Of the camera that `picture` has."""
TURNED = ("spz", "spz2", "spz4", "spz-fine")
"""SPZ has y up and z backwards, and both libraries show it so: half a turn about x from PLY."""
SPARK: tuple[ExportFormat, ...] = ("ply", "compressed-ply", "spz", "spz2", "spz-fine", "sog", "splat")
"""Spark 2.2 does not read SPZ of version 4."""
BABYLON: tuple[ExportFormat, ...] = (*SPARK, "spz4", "glb")


@dataclass(frozen=True)
class Found:
    """What a library made of a file."""

    gaussians: Gaussians
    """Without view dependence, in the frame of a PLY."""
    picture: torch.Tensor
    """(1, H, W, 3) as the library drew it, view dependence included."""


Show = Callable[[str, Path, bool], Found]


@pytest.fixture(scope="module")
def show() -> Iterator[Show]:
    """Opens a file on one of the pages."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def visit(library: str, path: Path, turned: bool) -> Found:
            page = browser.new_page()

            def answer(route: Any) -> None:
                url = route.request.url.split("?")[0]
                if outside := UNPKG.fullmatch(url):
                    url = f"{ORIGIN}/node_modules/{outside[1]}/{outside[2]}"
                room, _, rest = url.removeprefix(f"{ORIGIN}/").partition("/")
                file = {"node_modules": NODE_MODULES, "files": path.parent, "pages": PAGES}.get(room, Path()) / rest
                if not url.startswith(ORIGIN) or not file.is_file():
                    route.fulfill(status=404)
                    return
                route.fulfill(body=file.read_bytes(), content_type=TYPES.get(file.suffix, "application/octet-stream"))

            page.route("**/*", answer)
            page.goto(f"{ORIGIN}/pages/{library}.html")
            page.wait_for_function("window.ready", timeout=120_000)
            answered = page.evaluate("what => window.show(what)", {"name": path.name, "turned": turned, **VIEW})
            page.close()
            pixels = np.array(answered["pixels"], np.uint8).reshape(VIEW["height"], VIEW["width"], 4)
            shown = torch.from_numpy(pixels[::-1, :, :3].astype(np.float32) / 255)[None]
            gaussians = of_splats(answered["splats"]) if "splats" in answered else of_records(answered["records"], path)
            return Found(half_turned(gaussians) if turned else gaussians, shown)

        yield visit
        browser.close()


def of_splats(rows: list[list[float]]) -> Gaussians:
    """Spark's numbers: centre, scales, quaternion wxyz, opacity, colour."""
    table = np.array(rows)
    return Gaussians(
        means=torch.from_numpy(table[:, :3]).float(),
        quats=torch.from_numpy(table[:, 6:10]).float(),
        log_scales=torch.from_numpy(np.log(table[:, 3:6])).float(),
        opacity_logits=torch.from_numpy(logit(table[:, 10])).float(),
        sh_dc=torch.from_numpy(dc_of(table[:, 11:])).float(),
        sh_rest=torch.zeros(len(table), 0, 3),
    )


def of_records(octets: list[int], path: Path) -> Gaussians:
    """Babylon's bytes: it turns every format into the records of .splat."""
    copy = path.with_name("records.splat")
    copy.write_bytes(bytes(octets)[: len(octets) // ROW.itemsize * ROW.itemsize])
    return read_splat(copy)


def half_turned(gaussians: Gaussians) -> Gaussians:
    """After half a turn about x."""
    sign = torch.tensor([1.0, -1.0, -1.0])
    return replace(gaussians, means=gaussians.means * sign, quats=gaussians.quats * torch.cat([torch.ones(1), sign]))


@pytest.mark.parametrize(
    ("library", "format"),
    [("spark", format) for format in SPARK] + [("babylon", format) for format in BABYLON],
)
def test_libraries_for_the_web_read_and_draw_it(library: str, format: ExportFormat, show: Show, tmp_path: Path) -> None:
    gaussians = cloud()
    path = export_gaussians(gaussians, tmp_path / f"scene{FORMATS[format].suffix}", format)
    found = show(library, path, format in TURNED)
    assert len(found.gaussians) == len(gaussians)
    expected = matched(found.gaussians, gaussians)
    assert (found.gaussians.means - expected.means).abs().max() <= POSITION_STEP.get(format, 0.0) + 1e-5
    # SPZ has steps of 1/16, SOG a codebook of 256 scales, whose ends are far apart: measured 0.097.
    assert (found.gaussians.log_scales - expected.log_scales).abs().max() < (0.12 if format == "sog" else 0.04)
    similarity = (torch.nn.functional.normalize(found.gaussians.quats, dim=1) * expected.quats).sum(dim=1).abs()
    # Spark takes the angle from w, which a byte of .splat holds only up to 127/128: measured 0.9958 near the identity.
    assert similarity.min() > (0.995 if (library, format) == ("spark", "splat") else 0.9997)
    opacity, truth = (torch.sigmoid(logits) for logits in (found.gaussians.opacity_logits, expected.opacity_logits))
    assert (opacity - truth).abs().max() < 0.01
    kept = gaussians if format != "splat" else replace(gaussians, sh_rest=torch.zeros(len(gaussians), 0, 3))
    decibels = psnr(found.picture, picture(kept).clamp(0.0, 1.0)).item()
    # Their shaders are not our rasterizer: of the PLY, which holds everything, 33.7 dB (Spark) and 37.0 (Babylon).
    assert decibels > {"spark": 31, "babylon": 33}[library]
