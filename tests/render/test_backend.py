"""What is missing is said in one sentence that names the remedy: the native module, its CUDA part, a GPU, a newer
driver, code for the GPU at hand.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kinosplat.errors import BackendError, InputError
from kinosplat.render import backend, rasterize

from .scenes import SCENES


def test_tensors_on_a_gpu_need_a_build_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_native", lambda: SimpleNamespace(has_cuda=False))
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

    def fails() -> None:
        raise RuntimeError(reported)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(BackendError) as caught:
        run_pass(fails)
    assert str(caught.value) == (said or f"The CUDA backend failed: {reported}.")
