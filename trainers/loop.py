"""The one training loop: pictures or rays, loss, backward, optimiser, densification; metrics, checkpoints and
evaluation beside.

It knows nothing about Gaussians or fields (see method.py). On the hot path no Python waits for the device: numbers are
read back every `log_every` steps only. A picture that cannot be read stops the run with what was learned so far saved.
Where memory ends, pictures that stay on the device go first, then half of what a step learns from, then the run, saved.
"""

from __future__ import annotations

import math
import time

import torch

from kinosplat.errors import InputError, as_memory_error
from kinosplat.trainers.callbacks import Callbacks, StepProgress
from kinosplat.trainers.checkpoint import BEST
from kinosplat.trainers.evaluate import Evaluation, evaluate, spread
from kinosplat.trainers.feed import Feed, cache_bytes, make_feed
from kinosplat.trainers.interrupt import Interrupt
from kinosplat.trainers.method import Losses
from kinosplat.trainers.methods.registry import words_of
from kinosplat.trainers.recorder import Recorder
from kinosplat.trainers.training import Training
from kinosplat.trainers.utilisation import Utilisation

SECONDS_BETWEEN_SAVES = 30.0
"""Unless steps are counted: a checkpoint of 400 000 Gaussians is 307 MB, which a disk takes a second for."""


def train_to_the_end(training: Training, callbacks: Callbacks, utilisation: Utilisation) -> str:
    """Train until steps or time are used up; the last checkpoint is written. Returns what ended it, in words.

    Ctrl-C finishes the step, saves, and raises KeyboardInterrupt.
    """
    recorder = Recorder(training.run_dir, training.step, training.config.checkpoints.tensorboard)
    saves = SaveTimer(training)
    with recorder, make_feed(training) as feed, Interrupt() as interrupt, training.writer:
        progress = ProgressReader(training, recorder, callbacks)
        while not training.clock.is_over(training.step):
            waited = time.monotonic()
            callbacks.pause(training.method, training.step)
            training.clock.exclude(time.monotonic() - waited)
            losses = _step_if_memory_lasts(training, feed)
            if losses is None:
                _make_room(training, feed, callbacks)
                continue
            progress.after_step(losses)
            utilisation.sample()
            _save_and_evaluate(training, recorder, callbacks, saves)
            if interrupt.requested:
                callbacks.saved(training.step, training.save())
                raise KeyboardInterrupt
        callbacks.saved(training.step, training.save())
    schedule = training.config.schedule
    return "steps" if training.step >= (schedule.steps or 0) else "time limit"


def _step_if_memory_lasts(training: Training, feed: Feed) -> Losses | None:
    """One optimisation step, or None when the device ran out of memory before it had changed anything."""
    try:
        with as_memory_error():
            return train_step(training, feed)
    except MemoryError:
        return None


def _make_room(training: Training, feed: Feed, callbacks: Callbacks) -> None:
    """After a step that found no memory: save, and go on without pictures on the device, or with half the work; when
    neither is left to do, give up with an InputError.
    """
    for group in training.optimizer.groups:
        group.parameter.grad = None
    n_freed = feed.make_room()
    if training.device.type == "cuda":
        torch.cuda.empty_cache()
    step, words = training.step, words_of(training.config)
    size = f"{training.method.n_primitives} {words.primitives} and {words.step}"
    callbacks.saved(step, training.save())
    if n_freed > 0:
        remedy = f"going on without the {n_freed / 2**20:.0f} MiB of pictures that lay ready on the device"
    elif training.halve_work():
        remedy = f"going on with {words_of(training.config).step}"
    else:
        raise InputError(
            f"There is no memory left for {size} at step {step}, which is saved in {training.run_dir}; "
            f"start again with a lower {words.lower}."
        )
    callbacks.warned(f"Step {step}: there is no memory left for {size}; {remedy}.")


def train_step(training: Training, feed: Feed) -> Losses:
    """One optimisation step; one that finds no memory leaves everything but gradients as it was."""
    moment = training.clock.moment(training.step)
    try:
        losses = feed.losses(moment)
    except InputError:
        if training.step > 0:
            training.save()
        raise
    losses.backward()
    if training.exposure is not None:
        training.exposure.collect()
    rate_factor = math.sqrt(training.config.schedule.batch_size)
    training.optimizer.step(moment, training.method.touched(), rate_factor)
    try:
        with as_memory_error():
            training.method.after_step(moment)
    except MemoryError as error:
        # Some tensors may have their new rows already: this state must not be saved.
        words = words_of(training.config)
        raise InputError(
            f"There is no memory left to change {training.method.n_primitives} {words.primitives} at step "
            f"{training.step}; the last checkpoint in {training.run_dir} is whole, start again with a lower "
            f"{words.lower}."
        ) from error
    training.step += 1
    return losses


class SaveTimer:
    """Says after which steps a checkpoint is due."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._last = training.clock.elapsed

    def is_due(self) -> bool:
        """Whether the step that was just done calls for one."""
        every, elapsed = self._training.config.checkpoints.save_every, self._training.clock.elapsed
        if every is not None:
            return self._training.step % every == 0
        if elapsed - self._last < SECONDS_BETWEEN_SAVES:
            return False
        self._last = elapsed
        return True


def _save_and_evaluate(training: Training, recorder: Recorder, callbacks: Callbacks, saves: SaveTimer) -> None:
    """What is due after a step besides training."""
    every = training.config.evaluation.evaluate_every
    is_over = training.clock.is_over(training.step)
    if every is not None and training.step % every == 0 and training.scene.test and not is_over:
        record_evaluation(training, _evaluate_if_memory_lasts(training), recorder, callbacks)
    training.writer.poll()
    if not is_over and saves.is_due():
        training.begin_save(written=callbacks.saved)


def _evaluate_if_memory_lasts(training: Training) -> Evaluation:
    try:
        with as_memory_error():
            return evaluate_now(training)
    except MemoryError as error:
        training.save()
        raise InputError(
            f"There is no memory left to measure held-out views at step {training.step}, which is saved in "
            f"{training.run_dir}; start again with a lower {words_of(training.config).lower}."
        ) from error


def evaluate_now(training: Training) -> Evaluation:
    """Measure held-out views, without saving pictures."""
    return evaluate(
        training.method,
        spread(training.scene.test, training.config.evaluation.max_test_views),
        training.background.evaluation_color(),
        mask_use=training.config.image.settled_mask_use,
        cache_bytes=cache_bytes(training.config),
    )


def record_evaluation(training: Training, evaluation: Evaluation, recorder: Recorder, callbacks: Callbacks) -> None:
    """Write the means down, and keep the checkpoint if there was none better."""
    recorder.write("test", training.step, {"psnr": evaluation.psnr, "ssim": evaluation.ssim})
    callbacks.evaluated(training.step, evaluation)
    if training.best_psnr is None or evaluation.psnr > training.best_psnr:
        training.best_psnr = evaluation.psnr
        training.begin_save(BEST)


class ProgressReader:
    """Reads numbers back from the device every `log_every` steps and passes them on."""

    def __init__(self, training: Training, recorder: Recorder, callbacks: Callbacks) -> None:
        self._training = training
        self._recorder = recorder
        self._callbacks = callbacks
        self._last_step, self._last_elapsed = training.step, training.clock.elapsed
        self._n_dropped = int(training.optimizer.n_dropped_rows)

    def after_step(self, losses: Losses) -> None:
        """Called after every step; waits for the device only when a report is due."""
        training, every = self._training, self._training.config.checkpoints.log_every
        assert every is not None
        if training.step % every != 0:
            return
        *values, squared_error = torch.stack([*losses.terms.values(), losses.squared_error]).tolist()
        terms = {f"loss/{name}": value for name, value in zip(losses.terms, values, strict=True)}
        elapsed = training.clock.elapsed
        rate = (training.step - self._last_step) / max(elapsed - self._last_elapsed, 1e-6)
        n_dropped = int(training.optimizer.n_dropped_rows)
        line = StepProgress(
            step=training.step,
            progress=training.clock.progress,
            loss=sum(terms.values()),
            psnr=-10.0 * math.log10(max(squared_error, 1e-10)),
            n_primitives=training.method.n_primitives,
            elapsed=elapsed,
            steps_per_second=rate,
            remaining=self._remaining(rate),
            n_dropped_rows=n_dropped,
            summary=training.method.summary(),
        )
        self._recorder.write(
            "train",
            line.step,
            {"loss": line.loss, "psnr": line.psnr, **terms, "n_primitives": line.n_primitives}
            | line.summary
            | {"n_dropped_rows": n_dropped, "elapsed": round(elapsed, 3)},
        )
        if n_dropped > 0 and self._n_dropped == 0:
            self._callbacks.warned(
                f"Step {line.step}: gradients that are not finite were dropped for {n_dropped} rows so far; "
                "the report will have the total."
            )
        self._callbacks.stepped(line)
        self._last_step, self._last_elapsed, self._n_dropped = training.step, elapsed, n_dropped

    def _remaining(self, rate: float) -> float:
        clock = self._training.clock
        by_steps = max(clock.steps - self._training.step, 0) / max(rate, 1e-6)
        return by_steps if clock.time_limit is None else min(by_steps, max(clock.time_limit - clock.elapsed, 0.0))
