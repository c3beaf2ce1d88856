"""Time of the native multilayer perceptron against torch and against what the machine could do at best.

    python benchmarks/field_mlp.py --device cuda --samples 1048576
    python benchmarks/field_mlp.py --device cpu --samples 100000

The floor of a pass on CUDA is the larger of its bytes over the memory's bandwidth and its operations over the rate of
the tensor cores, both as measured here: by a copy, and by a large product in half precision. On the CPU it is the
operations over the rate of a large product in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from kinosplat.render.field.native_mlp import mlp_backward, mlp_forward

NETWORKS = {"density": (32, 64, 16), "colour": (32, 64, 64, 3)}


def seconds(call: Callable[[], object], device: torch.device, n: int = 20) -> float:
    """Median of `n` calls after some to warm up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(n):
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    return sorted(times)[n // 2]


def torch_mlp(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        inputs = torch.relu(inputs @ weight.T)
    return inputs @ weights[-1].T


def main() -> None:
    """Print one line a network and pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--samples", type=int, default=2**20)
    arguments = parser.parse_args()
    device, n = torch.device(arguments.device), arguments.samples
    on_gpu = device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.float32

    size = 8192 if on_gpu else 2048
    square = torch.randn(size, size, device=device, dtype=dtype)
    rate = 2 * size**3 / seconds(lambda: square @ square, device, 5)
    block = torch.empty(2**28 if on_gpu else 2**24, device=device)
    other = torch.empty_like(block)
    bandwidth = 2 * block.nbytes / seconds(lambda: other.copy_(block), device, 5)
    print(f"{device}: {rate / 1e12:.3f} T operations/s, {bandwidth / 1e9:.0f} GB/s, {n} samples")

    for name, widths in NETWORKS.items():
        weights = [torch.randn(n_out, n_in, device=device) / n_in**0.5 for n_in, n_out in pairwise(widths)]
        products = sum(n_in * n_out for n_in, n_out in pairwise(widths))
        dL_doutputs = torch.randn(n, widths[-1], device=device)
        floats = torch.randn(n, widths[0], device=device)
        leaves = [w.to(dtype).requires_grad_() for w in weights]
        torch_inputs = floats.to(dtype).requires_grad_()
        torch_gradient = dL_doutputs.to(dtype)

        def torch_both(x: Tensor = torch_inputs, w: list[Tensor] = leaves, g: Tensor = torch_gradient) -> object:
            return torch.autograd.grad(torch_mlp(x, w), [x, *w], g)

        def torch_forward(x: Tensor = torch_inputs, w: list[Tensor] = leaves) -> object:
            with torch.no_grad():
                return torch_mlp(x, w)

        forward_of_torch, both_of_torch = seconds(torch_forward, device), seconds(torch_both, device)
        for inputs in [floats, floats.half()] if on_gpu else [floats]:
            size_in, size_out = widths[0] * inputs.element_size(), widths[-1] * 4

            def forward(x: Tensor = inputs, w: list[Tensor] = weights) -> object:
                return mlp_forward(x, w)

            def backward(x: Tensor = inputs, w: list[Tensor] = weights, g: Tensor = dL_doutputs) -> object:
                return mlp_backward(g, x, w)

            # The backward pass does the forward pass's products again, but for the last layer's, and two more of each.
            rows = [
                ("forward", forward, 2 * products, size_in + size_out, forward_of_torch),
                (
                    "backward",
                    backward,
                    6 * products - 2 * widths[-2] * widths[-1],
                    size_in + size_out + 4 * widths[0],
                    both_of_torch - forward_of_torch,
                ),
            ]
            for what, call, operations, n_bytes, of_torch in rows:
                measured = seconds(call, device)
                floor = max(n * operations / rate, n * n_bytes / bandwidth if on_gpu else 0.0)
                print(
                    f"{name} {'-'.join(map(str, widths))} {what:8} {str(inputs.dtype)[6:]}: {measured * 1e3:.3f} ms, "
                    f"{n / measured / 1e9:.3f} G samples/s, {measured / floor:.1f} x floor, "
                    f"torch in {str(dtype)[6:]} {of_torch * 1e3:.3f} ms ({of_torch / measured:.1f} x)"
                )


if __name__ == "__main__":
    main()
