"""A run that was stopped, however rudely, goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kinosplat.errors import InputError
from kinosplat.render import RasterSettings
from kinosplat.trainers.callbacks import Callbacks, StepProgress
from kinosplat.trainers.checkpoint import checkpoint_path, load_checkpoint
from kinosplat.trainers.config import CorrectionConfig, ImageConfig, TrainConfig
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.run import Overrides, load_run, resume, train
from kinosplat.trainers.serialize import to_json

from .toys import Toy, tiny_config, with_options


class StopAt(Callbacks):
    """Presses Ctrl-C once `step` steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, progress: StepProgress) -> None:
        if progress.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def curve(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what depends on the machine's speed."""
    return [{k: v for k, v in line.items() if k != "elapsed"} for line in read_metrics(run_dir / "metrics.jsonl")]


def every_option(config: TrainConfig) -> TrainConfig:
    """The config with everything on that keeps state."""
    return replace(
        config,
        corrections=CorrectionConfig(exposure=True, refine_poses=True),
        image=ImageConfig(background="learned"),
        schedule=replace(config.schedule, batch_size=2),
    )


@pytest.mark.parametrize(
    "method", [ThreeDGS(densify="classic"), ThreeDGS(), FourDGS()], ids=["classic", "3dgs", "4dgs"]
)
def test_an_interrupted_run_resumes_bitwise_to_the_same_curve_and_parameters(
    method: ThreeDGS | FourDGS, still_toy: Toy, moving_toy: Toy, tmp_path: Path
) -> None:
    toy = moving_toy if isinstance(method, FourDGS) else still_toy
    config = every_option(tiny_config(method, toy, steps=24))
    train(config, toy.scene(), tmp_path / "whole")

    # Not a multiple of save_every, so the checkpoint is the one that Ctrl-C wrote.
    with pytest.raises(KeyboardInterrupt):
        train(config, toy.scene(), tmp_path / "parts", StopAt(13))
    assert load_checkpoint(checkpoint_path(tmp_path / "parts")).metadata["step"] == 13
    resume(tmp_path / "parts")

    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    whole = load_checkpoint(checkpoint_path(tmp_path / "whole")).tensors
    parts = load_checkpoint(checkpoint_path(tmp_path / "parts")).tensors
    assert whole.keys() == parts.keys()
    assert all(whole[name].equal(parts[name]) for name in whole)


def test_lines_and_steps_after_the_last_checkpoint_are_done_again(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=24)
    train(config, still_toy.scene(), tmp_path / "whole")

    class Crash(Callbacks):
        def stepped(self, progress: StepProgress) -> None:
            if progress.step == 17:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(config, still_toy.scene(), tmp_path / "crashed", Crash())
    with (tmp_path / "crashed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    resume(tmp_path / "crashed")
    assert curve(tmp_path / "crashed") == curve(tmp_path / "whole")


def test_a_run_goes_on_past_its_original_end(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=12)
    train(config, still_toy.scene(), tmp_path / "run")
    report = resume(tmp_path / "run", Overrides(steps=20))
    assert report.steps == 20
    assert [line["step"] for line in curve(tmp_path / "run") if line["kind"] == "train"] == list(range(1, 21))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["schedule"]["steps"] == 20


def test_a_finished_run_resumed_as_it_is_only_reports_again(still_toy: Toy, tmp_path: Path) -> None:
    first = train(tiny_config(ThreeDGS(), still_toy, steps=5), still_toy.scene(), tmp_path / "run")
    again = resume(tmp_path / "run")
    assert (again.steps, again.psnr, again.ssim) == (first.steps, first.psnr, first.ssim)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(steps=4), r"^--steps 4 is less than the 5 that .* has done; give more, or leave it out\.$"),
        (Overrides(time_limit=1e-3), r"^--time-limit 0\.001 is less than the \d+ s that .* has taken; give more, or"),
    ],
)
def test_what_is_done_already_is_refused_and_changes_nothing(
    overrides: Overrides, message: str, still_toy: Toy, tmp_path: Path
) -> None:
    train(tiny_config(ThreeDGS(), still_toy, steps=5), still_toy.scene(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        resume(tmp_path, overrides)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_stopped_before_its_first_checkpoint_starts_over(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=8)
    train(config, still_toy.scene(), tmp_path / "run")
    whole = curve(tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    resume(tmp_path / "run")
    assert curve(tmp_path / "run") == whole


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    import torch
    from kinosplat.trainers import checkpoint
    from kinosplat.trainers.config import TrainConfig
    from kinosplat.trainers.run import train
    from kinosplat.trainers.serialize import from_json
    from kinosplat.scenes import load_scene

    torch.set_num_threads(1)
    rename, n_saves = os.replace, 0

    def kill_at_the_second_checkpoint(source, target):
        global n_saves
        n_saves += str(target).endswith("last.safetensors")
        if n_saves == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = kill_at_the_second_checkpoint
    config = from_json(TrainConfig, json.loads(sys.argv[1]), "argument")
    train(config, load_scene(config.scene), Path(sys.argv[2]))
"""


def test_kill_9_in_the_middle_of_saving_leaves_a_run_that_resumes(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=24)
    train(config, still_toy.scene(), tmp_path / "whole")
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), json.dumps(to_json(config)), str(tmp_path / "killed")],
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(checkpoint_path(tmp_path / "killed")).metadata["step"] == 10
    resume(tmp_path / "killed")
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_a_run_limited_by_time_ends_with_rates_decayed_and_resumes_with_more_time(
    still_toy: Toy, tmp_path: Path
) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=100_000)
    config = replace(config, schedule=replace(config.schedule, time_limit=1.5))
    report = train(config, still_toy.scene(), tmp_path / "run")
    assert report.finished == "time limit"
    assert report.steps < 100_000
    assert load_checkpoint(checkpoint_path(tmp_path / "run")).metadata["progress"] == pytest.approx(1.0, abs=0.1)
    again = resume(tmp_path / "run", Overrides(time_limit=3.0))
    assert again.steps > report.steps
    assert again.seconds >= 3.0


def test_a_trained_run_can_be_loaded_without_its_scene(moving_toy: Toy, tmp_path: Path) -> None:
    report = train(tiny_config(FourDGS(), moving_toy, steps=6), moving_toy.scene(), tmp_path / "run")
    for which in ("last", "best"):
        run = load_run(tmp_path / "run", which, device="cpu")
        assert (run.step, run.method.name, run.method.n_primitives) == (6, "4dgs", report.n_primitives)
    assert run.scene().times == moving_toy.scene().times


def test_a_run_saved_before_some_options_existed_goes_on_with_what_it_was_trained_with(
    still_toy: Toy, tmp_path: Path
) -> None:
    config = with_options(ThreeDGS(), near=RasterSettings().near, max_gaussians=80, sh_degree=1)
    train(replace(tiny_config(ThreeDGS(), still_toy, steps=4), method=config), still_toy.scene(), tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    for group, option in ((saved["method"]["gaussians"], "near"), (saved["image"], "mask_use")):
        del group[option]
    path.write_text(json.dumps(saved))
    assert load_run(tmp_path).config.method.gaussians.near == RasterSettings().near
    assert resume(tmp_path, Overrides(steps=6)).steps == 6
    assert load_run(tmp_path).config.image.mask_use == "ignore-outside"


def test_a_folder_that_holds_a_run_is_not_overwritten(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=2)
    train(config, still_toy.scene(), tmp_path / "run")
    with pytest.raises(InputError) as error:
        train(config, still_toy.scene(), tmp_path / "run")
    assert str(error.value) == f"{tmp_path / 'run'} holds a run already; resume it or choose another folder."


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        resume(tmp_path)
    assert str(error.value) == f"{tmp_path} is not the folder of a run: it has no config.json; give one that has."
