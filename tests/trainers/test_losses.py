"""Masks, alpha and backgrounds: what the loss looks at and what it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinosplat.render.output import RenderOutput
from kinosplat.scenes import LoadedBatch
from kinosplat.trainers.background import Background
from kinosplat.trainers.batch import Batch, assemble
from kinosplat.trainers.config import ImageConfig
from kinosplat.trainers.losses import image_loss
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.run import load_run, train

from .toys import ring, tiny_config, write_toy

H, W = 20, 24


def pictures(n: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, H, W, 3, generator=torch.Generator().manual_seed(seed))


def left_half() -> torch.Tensor:
    mask = torch.zeros(1, H, W)
    mask[:, :, : W // 2] = 1.0
    return mask


def output_of(rgb: torch.Tensor, alpha: float = 1.0) -> RenderOutput:
    return RenderOutput(rgb=rgb, alpha=torch.full(rgb.shape[:3], alpha))


def batch_of(target: torch.Tensor, **changes: object) -> Batch:
    return Batch(tuple(ring(1)), target, torch.zeros(3), **changes)  # type: ignore[arg-type]


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms.values())).sum()


def test_pixels_outside_the_mask_have_no_influence_on_value_or_gradient() -> None:
    target, mask = pictures(), left_half()
    rendered = pictures(seed=1).requires_grad_()
    elsewhere = torch.where(mask[..., None] > 0, target, pictures(seed=2))
    terms, error = image_loss(output_of(rendered), batch_of(target, mask=mask), ImageConfig())
    other_terms, other_error = image_loss(output_of(rendered), batch_of(elsewhere, mask=mask), ImageConfig())
    assert total(terms).item() == pytest.approx(total(other_terms).item(), rel=1e-6)
    assert error.item() == pytest.approx(other_error.item(), rel=1e-6)
    total(terms).backward()
    assert rendered.grad is not None
    assert (rendered.grad[:, :, W // 2 :] == 0).all()
    assert (rendered.grad[:, :, : W // 2] != 0).any()


def test_alpha_is_composited_over_the_background_and_supervised() -> None:
    white = torch.full((H, W, 4), 255, dtype=torch.uint8)
    white[..., 3] = 51
    loaded = LoadedBatch(pixels=(white,), mask_pixels=(None,))
    batch = assemble(loaded, ring(1), torch.tensor([0.0, 0.5, 1.0]), "ignore-outside")
    assert batch.target[0, 0, 0].tolist() == pytest.approx([0.2, 0.6, 1.0])
    terms, error = image_loss(output_of(batch.target, alpha=0.7), batch, ImageConfig(alpha_weight=0.1))
    assert error.item() == 0.0
    assert terms["alpha"].item() == pytest.approx(0.05)


def test_a_mask_can_mean_that_the_scene_ends_at_it() -> None:
    mask = left_half()
    white = torch.full((H, W, 3), 255, dtype=torch.uint8)
    loaded = LoadedBatch(pixels=(white,), mask_pixels=((255 * mask[0]).byte(),))
    batch = assemble(loaded, ring(1), torch.zeros(3), "object-only")
    assert batch.mask is None
    assert batch.alpha is not None
    assert batch.alpha.equal(mask)
    assert batch.target[..., 0].equal(mask)


def test_random_backgrounds_follow_from_seed_and_step_and_held_out_views_are_on_black() -> None:
    background = Background("random", seed=1, device=torch.device("cpu"))
    assert background.color(3).equal(Background("random", seed=1, device=torch.device("cpu")).color(3))
    assert not background.color(3).equal(background.color(4))
    assert background.evaluation_color().tolist() == [0.0, 0.0, 0.0]
    assert background.behind_rays(3) is None  # each ray draws its own
    white = Background("white", seed=1, device=torch.device("cpu"))
    assert white.behind_rays(0) is not None
    assert white.color(0).tolist() == white.evaluation_color().tolist() == [1.0, 1.0, 1.0]


def test_a_learned_background_finds_the_colour_behind_the_scene(tmp_path: Path) -> None:
    color = torch.tensor([0.2, 0.6, 0.9])
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1, background=color)
    config = replace(tiny_config(ThreeDGS(), toy, steps=120), image=ImageConfig(background="learned"))
    train(config, toy.scene(), tmp_path / "run")
    # Measured 0.006 at most.
    assert load_run(tmp_path / "run", device="cpu").background.tolist() == pytest.approx(color.tolist(), abs=0.04)


def test_what_lies_outside_masks_is_neither_learned_nor_measured(tmp_path: Path) -> None:
    mask = torch.zeros(36, 48, dtype=torch.bool)
    mask[:, 8:40] = True
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1, mask=mask)
    report = train(tiny_config(ThreeDGS(), toy, steps=20), toy.scene(), tmp_path / "run")
    assert report.psnr_region == "inside the masks"
    assert report.psnr == report.psnr_masked
    assert report.psnr != report.psnr_whole
    cut_out = replace(tiny_config(ThreeDGS(), toy, steps=20), image=ImageConfig(mask_use="object-only"))
    report = train(cut_out, toy.scene(), tmp_path / "cut_out")
    assert report.psnr_region == "whole picture, what is outside the masks replaced by the background"
    assert report.psnr == report.psnr_whole
    assert report.psnr_masked is not None


def test_a_lamp_may_be_brighter_than_a_sensor_can_show_and_nothing_else() -> None:
    target = torch.full((1, H, W, 3), 0.5)
    target[:, :, : W // 2] = 1.0
    config, lamp = ImageConfig(saturation=True), target.clone()
    lamp[:, :, : W // 2] = 1.7
    terms, error = image_loss(output_of(lamp), batch_of(target), config)
    # SSIM rounds in float32; measured 1e-7.
    assert total(terms).item() == pytest.approx(0.0, abs=1e-5)
    assert error.item() == 0.0
    everywhere = torch.full_like(target, 1.7).requires_grad_()
    terms, _ = image_loss(output_of(everywhere), batch_of(target), config)
    total(terms).backward()
    assert everywhere.grad is not None
    assert (everywhere.grad[:, :, : W // 2] == 0.0).all()
    assert (everywhere.grad[:, :, W // 2 :] > 0.0).all()
