"""What is missing is said in one sentence that names the remedy: the native module, its CUDA part, a GPU, a newer
driver, code for the GPU at hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kinosplat.errors import BackendError, InputError
from kinosplat.render import RasterSettings, backend, rasterize
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.config import GaussianConfig, ThreeDGS
from kinosplat.trainers.methods.presets import resolve

from .scenes import SCENES


def test_tensors_on_a_gpu_need_a_build_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_native", lambda: SimpleNamespace(has_cuda=False))
    backend.passes_for.cache_clear()
    with pytest.raises(BackendError) as caught:
        backend.passes_for(torch.device("cuda", 0))
    assert str(caught.value) == (
        "This build of kinosplat has no CUDA backend; install the CUDA toolkit and reinstall kinosplat, or use the CPU."
    )


def test_tensors_elsewhere_are_refused() -> None:
    with pytest.raises(BackendError) as caught:
        backend.passes_for(torch.device("meta"))
    assert str(caught.value) == "Tensors on 'meta' cannot be rendered; move them to the CPU or a CUDA device."


def test_half_precision_is_for_drawing_on_a_gpu() -> None:
    scene = SCENES["crowded"](torch.float32)
    gaussians = scene.gaussians
    halved = replace(gaussians, sh_rest=gaussians.sh_rest.half())
    with pytest.raises(InputError, match="sh_rest in float16 is for drawing on a GPU without gradients"):
        rasterize(halved, scene.cameras)
    assert gaussians.for_drawing().sh_rest.dtype == torch.float32


def test_a_build_with_cuda_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_native", lambda: SimpleNamespace(has_cuda=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backends = backend.render_backends()
    assert backends["native-cpu"] is None
    assert backends["native-cuda"] == (
        "PyTorch finds no usable CUDA device; install a driver and a CUDA build of PyTorch, or use the CPU."
    )


def test_a_build_without_native_code_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise BackendError(backend.MISSING_NATIVE)

    monkeypatch.setattr(backend, "load_native", missing)
    backends = backend.render_backends()
    assert backends["native-cpu"] == backends["native-cuda"] == backend.MISSING_NATIVE
    assert backends["reference"] is None


@pytest.mark.parametrize(
    ("reported", "said"),
    [
        (
            "project: no kernel image is available for execution on the device",
            "This build of kinosplat has no code for this GPU (compute capability 7.5); reinstall it from source on "
            "this machine.",
        ),
        (
            "project: the provided PTX was compiled with an unsupported toolchain.",
            "This build of kinosplat has no code for this GPU (compute capability 7.5); reinstall it from source on "
            "this machine.",
        ),
        (
            "device: CUDA driver version is insufficient for CUDA runtime version",
            "The NVIDIA driver is older than the CUDA toolkit this build of kinosplat needs; update the driver, or "
            "reinstall kinosplat with the toolkit of the driver.",
        ),
        ("blend: an illegal memory access was encountered", None),
    ],
)
def test_what_cuda_reports_becomes_a_sentence(reported: str, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if not backend.load_native().has_cuda:
        pytest.skip("This build has no CUDA backend.")
    from kinosplat.render.cuda_call import run_pass

    def fails(queue: object) -> None:
        raise RuntimeError(reported)

    # Of the device that was asked, whatever is current.
    monkeypatch.setattr(torch.cuda, "get_device_capability", {3: (7, 5)}.__getitem__)
    with pytest.raises(BackendError) as caught:
        run_pass(fails, backend.load_native().gpu.Queue(device=3, stream=0))
    assert str(caught.value) == (said or f"The CUDA backend failed: {reported}.")


def test_memory_that_cuda_lacks_is_missing_as_where_torch_lacks_it() -> None:
    """So that a training step may be done again with less."""
    if not backend.load_native().has_cuda:
        pytest.skip("This build has no CUDA backend.")
    from kinosplat.render.cuda_call import run_pass

    def fails() -> None:
        raise RuntimeError("blend: out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run_pass(fails)


def test_gsplat_draws_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gsplat.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    scene = SCENES["crowded"](torch.float32)
    with pytest.raises(BackendError) as caught:
        rasterize(scene.gaussians, scene.cameras, settings=RasterSettings(rasterizer="gsplat"))
    sentence = "The gsplat rasterizer draws on a CUDA device only; use one, or the native rasterizer."
    assert str(caught.value) == sentence
    config = TrainConfig(method=ThreeDGS(gaussians=GaussianConfig(rasterizer="gsplat")), device="cpu")
    with pytest.raises(BackendError, match="The gsplat rasterizer draws on a CUDA device only"):
        resolve(config)


def test_gsplat_that_is_not_installed_is_missed_before_a_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(BackendError) as caught:
        backend.check_gsplat(torch.device("cuda"))
    assert str(caught.value) == (
        "The gsplat rasterizer is not installed; run 'pip install gsplat', or use the native rasterizer."
    )
