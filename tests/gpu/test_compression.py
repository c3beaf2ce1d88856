"""What compression computes on the GPU is what the CPU computes, and k-means there repeats to the bit."""

from __future__ import annotations

import pytest
import torch
from compression.test_svq import blobs
from compression.toy_surroundings import toy_gaussians, toy_surroundings

from kinosplat.compression.merge import MergingGaussians, cluster_cells
from kinosplat.compression.networks import AppearanceNetworks, fit_networks
from kinosplat.compression.scores import score
from kinosplat.compression.svq import kmeans, nearest

pytestmark = pytest.mark.gpu


def test_the_same_seed_gives_the_same_bits() -> None:
    _, points = blobs(30, 2000, spread=1.0)
    weights = torch.rand(len(points), generator=torch.Generator().manual_seed(1))
    for n_clusters in (1, 64, 1024):
        first = kmeans(points.cuda(), n_clusters, weights=weights.cuda(), seed=3)
        for _ in range(3):
            again = kmeans(points.cuda(), n_clusters, weights=weights.cuda(), seed=3)
            assert torch.equal(first[0], again[0])
            assert torch.equal(first[1], again[1])


def test_clusters_are_those_of_the_cpu() -> None:
    _, points = blobs(20, 50)
    cpu, gpu = kmeans(points, 20, seed=1), kmeans(points.cuda(), 20, seed=1)
    # Other random numbers start it; well separated clusters are found all the same, numbered otherwise.
    match, distance = nearest(gpu[0].cpu(), cpu[0])
    assert distance.max() < 1e-5  # squared; 1e-6 on an H200: differences of large sums in another order
    assert torch.equal(match[gpu[1].cpu()], cpu[1])


@pytest.mark.parametrize("moving", [True, False])
def test_scores_are_those_of_the_cpu(moving: bool) -> None:
    truth, learned = toy_gaussians(moving=moving)
    cpu = score(learned, toy_surroundings(truth))
    gpu = score(learned.to("cuda"), toy_surroundings(truth, "cuda"))
    for ours, theirs in zip(gpu.normalised(), cpu.normalised(), strict=True):
        # Sums over pixels in another order, and Gaussians that one backend cuts off just before the other.
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-2, atol=1e-3)


def test_a_merged_set_is_that_of_the_cpu() -> None:
    _, learned = toy_gaussians()
    importance = torch.linspace(1, 2, len(learned))
    found = []
    for device in ("cpu", "cuda"):
        gaussians, weights = learned.to(device), importance.to(device)
        clusters = cluster_cells(gaussians, weights, cell_size=0.5, cell_duration=0.5, threshold=-4.0)
        assert clusters.n_clusters < len(learned)
        found.append((clusters, MergingGaussians(gaussians, clusters, weights).gaussians().detach().to("cpu")))
    assert torch.equal(found[0][0].cluster, found[1][0].cluster.cpu())
    for name, expected in found[0][1].parameters().items():
        torch.testing.assert_close(found[1][1].parameters()[name], expected, rtol=1e-4, atol=1e-5)


def test_networks_dress_as_on_the_cpu_and_are_fitted_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinosplat.compression.networks.FIT_STEPS", 100)
    truth, _ = toy_gaussians()
    latents = torch.randn(len(truth), 6, generator=torch.Generator().manual_seed(1))
    networks = AppearanceNetworks.create(truth, seed=3)
    on_gpu = AppearanceNetworks.create(truth.to("cuda"), seed=3)
    expected = networks.dressed(truth, latents).parameters()
    found = on_gpu.dressed(truth.to("cuda"), latents.cuda()).parameters()
    for name, tensor in found.items():
        # Sines of angles up to 400 and sums of 64 products: 3e-5 between two readers on the CPU.
        torch.testing.assert_close(tensor.cpu(), expected[name], rtol=1e-3, atol=1e-3)
    errors = []
    for device in ("cpu", "cuda"):
        gaussians = truth.to(device)
        fitted, own_latents = fit_networks(gaussians, torch.ones(len(truth), device=device), seed=0)
        errors.append(float((fitted.dressed(gaussians, own_latents).sh_dc - gaussians.sh_dc).square().mean()))
    assert errors[1] < 1.5 * errors[0] + 1e-3
