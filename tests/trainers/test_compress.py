"""What compression is told about a run: its training views as the set should look, whatever was corrected."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kinosplat.compression.bits import Probe, choose, make_plan, measure_options
from kinosplat.compression.canonical import canonical_axes
from kinosplat.compression.config import CompressConfig
from kinosplat.compression.quantised import QuantisedGaussians
from kinosplat.compression.stored import StoredSet, TunableSet
from kinosplat.compression.tunable import fine_rates
from kinosplat.errors import InputError
from kinosplat.render.exposure import Sensor
from kinosplat.scenes.images import ImageFile
from kinosplat.trainers.compress import compress_run, surroundings_of
from kinosplat.trainers.config import CorrectionConfig, ImageConfig
from kinosplat.trainers.feed import make_loader, picture_batch
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.methods.gaussian_step import picture_loss
from kinosplat.trainers.run import read_config, train
from kinosplat.trainers.training import Training, restore, scene_for

from .toys import Toy, tiny_config, write_toy


def trained(toy: Toy, run_dir: Path, **changes: object) -> Training:
    """A run of 150 steps, as compression finds it."""
    train(replace(tiny_config(ThreeDGS(), toy, steps=150), **changes), toy.scene(), run_dir)
    config = read_config(run_dir)
    return restore(config, scene_for(config, toy.scene()), run_dir)


def test_views_are_over_the_background_that_sets_are_drawn_over(tmp_path: Path) -> None:
    """Training cut-out objects draws a new colour behind them each step; scores and bits must not see it."""
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1, with_alpha=True)
    training = trained(toy, tmp_path / "run", image=ImageConfig(background="random"))
    with surroundings_of(training) as surroundings:
        first, again = (list(surroundings.views(4)) for _ in range(2))
        assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
        assert (first[0].images[0, 0, 0] == 0).all()  # the corner is empty
        mse = Probe(training.method.gaussians(), surroundings, 4).training_mse
    assert mse < 0.005  # measured 0.0005; over random colours 0.2


def test_colours_of_cameras_are_corrected_where_renders_meet_photos(tmp_path: Path) -> None:
    darker = torch.eye(3, 4).repeat(4, 1, 1) * torch.tensor([1.0, 0.6, 1.0, 0.6])[:, None, None]
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1, exposures=darker)
    training = trained(toy, tmp_path / "run", corrections=CorrectionConfig(exposure=True, exposure_lr=0.03))
    with surroundings_of(training) as surroundings:
        gaussians = training.method.gaussians()
        corrected = Probe(gaussians, surroundings, 4).training_mse
        plain = replace(
            surroundings, views=lambda n: (replace(view, sensor=Sensor()) for view in surroundings.views(n))
        )
        assert corrected < 0.5 * Probe(gaussians, plain, 4).training_mse


def test_pictures_are_decoded_while_the_run_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=2)
    trained(toy, tmp_path / "run")
    load, decoded = ImageFile.load, threading.Semaphore(0)

    def counted(image: ImageFile) -> NDArray[np.uint8]:
        pixels = load(image)
        decoded.release()
        return pixels

    def slow_restore(*arguments: object) -> Training:
        assert all(decoded.acquire(timeout=20) for _ in range(6)), "a picture was not on its way"
        raise InputError("seen enough")

    monkeypatch.setattr(ImageFile, "load", counted)
    monkeypatch.setattr("kinosplat.trainers.compress.restore", slow_restore)
    with pytest.raises(InputError, match="seen enough"):
        compress_run(tmp_path / "run", CompressConfig())


def test_fine_tuning_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1)
    training = trained(toy, tmp_path / "run")
    before = training.method.gaussians().means.clone()
    with surroundings_of(training) as surroundings:
        quality = surroundings.evaluate(training.method.gaussians())
        worse = replace(training.method.gaussians(), sh_dc=training.method.gaussians().sh_dc + 0.2)
        tunable = TunableSet(StoredSet(worse), fine_rates(surroundings))
        spoiled = surroundings.evaluate(worse).psnr
        surroundings.fine_tune(tunable, 60)
        assert surroundings.evaluate(tunable.tuned().gaussians).psnr > spoiled + 1.0
        assert quality.psnr == pytest.approx(surroundings.evaluate(training.method.gaussians()).psnr)
    assert training.step == 150
    assert torch.equal(training.method.gaussians().means, before)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_rounded_is_tuned_by_the_gradients_that_autograd_finds(device: str, tmp_path: Path) -> None:
    """Native passes know the gradients by what is drawn; the rest of the way to codebooks and ratios is autograd's."""
    toy = write_toy(tmp_path / "scene", n_train=2, n_test=1)
    training = trained(toy, tmp_path / "run", device=device)
    with surroundings_of(training) as surroundings:
        stored = StoredSet(canonical_axes(training.method.gaussians()))
        probe = Probe(stored.gaussians, surroundings, 2)
        options = measure_options(stored, probe, torch.ones(len(stored), device=device), seed=0)
        tunable = QuantisedGaussians(stored, make_plan(stored, choose(options, 1e-4)), fine_rates(surroundings))
        loader = make_loader(training)
        batch = picture_batch(training, [0], [], loader)
        gradients = []
        for rasterizer in ("native", "reference"):
            settings = replace(surroundings.settings, rasterizer=rasterizer)
            picture_loss(tunable.gaussians(), batch, settings, training.config.image).backward()
            gradients.append({name: leaf.grad for name, leaf in tunable.leaves.items()})
            for leaf in tunable.leaves.values():
                leaf.grad = None
        loader.close()
    native, reference = gradients
    for name, gradient in reference.items():
        # float32 sums in another order: measured 9e-6 of the largest.
        assert torch.allclose(native[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max()), name
