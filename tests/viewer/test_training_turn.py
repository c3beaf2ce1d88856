"""Training and looking take turns."""

from __future__ import annotations

import threading
import time

import pytest

from kinosplat.viewer.training import TrainingTurn, refresh_interval
from viewer.toys import wait_until


def train(turn: TrainingTurn, stop: threading.Event, steps: list[float], inside: list[bool]) -> None:
    """Steps of two milliseconds during which nobody may look."""
    while not stop.is_set():
        turn.pass_by()
        inside[0] = True
        time.sleep(0.002)
        inside[0] = False
        steps.append(time.monotonic())
    turn.end()


def test_nobody_looks_during_a_step_and_a_busy_visitor_gets_one_picture_a_step() -> None:
    turn, stop, steps, inside = TrainingTurn(), threading.Event(), [], [False]
    trainer = threading.Thread(target=train, args=(turn, stop, steps, inside), daemon=True)
    trainer.start()
    n_looks, seen_inside = 0, False
    assert wait_until(lambda: len(steps) > 2)
    before = len(steps)
    for _ in range(50):
        with turn.turn():
            seen_inside |= inside[0]
            n_looks += 1
    n_steps = len(steps) - before
    stop.set()
    trainer.join(timeout=5)
    assert not seen_inside
    # At most one look is let in between two steps.
    assert n_steps >= n_looks - 2


def test_a_paused_training_stands_still_and_can_be_looked_at() -> None:
    turn, stop, steps, inside = TrainingTurn(), threading.Event(), [], [False]
    trainer = threading.Thread(target=train, args=(turn, stop, steps, inside), daemon=True)
    trainer.start()
    turn.set_paused(True)
    with turn.turn():
        pass
    n_steps = len(steps)
    for _ in range(5):
        with turn.turn():
            time.sleep(0.01)
    assert len(steps) == n_steps
    turn.set_paused(False)
    assert wait_until(lambda: len(steps) > n_steps)
    stop.set()
    trainer.join(timeout=5)


def test_after_the_end_everybody_may_look() -> None:
    turn = TrainingTurn()
    turn.pass_by()
    turn.end()
    with turn.turn():
        pass


def test_passing_by_with_nobody_waiting_costs_microseconds() -> None:
    turn = TrainingTurn()
    began = time.perf_counter()
    for _ in range(1000):
        turn.pass_by()
    # 1 µs each on an idle machine; a step takes milliseconds.
    assert time.perf_counter() - began < 0.1


def test_a_slow_model_is_shown_to_idle_visitors_less_often() -> None:
    assert refresh_interval(0.001) == 1.0
    assert refresh_interval(0.1) == pytest.approx(5.0)
