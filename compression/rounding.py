"""The last stage: choose how coarsely each parameter is stored, fine-tune through the rounding, write the file, read it
back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kinosplat.compression.bits import Option, Probe, budget_for, choose, make_plan, measure_options
from kinosplat.compression.config import Resolved
from kinosplat.compression.kino import Metadata, encode_kino, read_kino, write_kino
from kinosplat.compression.networks import fit_networks
from kinosplat.compression.prune import largest
from kinosplat.compression.quantised import LAYER_BITS, QuantisedGaussians
from kinosplat.compression.report import StageReport
from kinosplat.compression.scores import score
from kinosplat.compression.stored import StoredSet, TunableSet
from kinosplat.compression.surroundings import Surroundings
from kinosplat.compression.tunable import fine_rates
from kinosplat.render.gaussians import Gaussians

TARGET_MARGIN = 0.97
"""Share of a target size that is aimed at, as the bytes of a file are estimated before it is written."""
FITTING_RUNS = 5
"""Attempts at most to fit a target size."""
LEAST_SHARE = 0.5
"""Of the set that stays when even the coarsest numbers do not fit."""
IMPORTANCE_VIEWS = 200
"""Views that say what is still seen, and how much."""
COARSEST_LOSS = 4.0
"""Decibels of rounding beyond which fewer Gaussians are the better way to save."""


@dataclass(frozen=True)
class Measured:
    """A set, and what each way to store each of its parameters loses and costs."""

    stored: StoredSet
    importance: Tensor
    options: dict[str, list[Option]]
    training_mse: float
    """Of the unrounded set against the photos."""

    def choose(self, most_mse: float, room: float | None) -> dict[str, Option]:
        """The smallest whose pictures differ from the photos by at most `most_mse`; given room, instead the best of at
        most so many bytes.
        """
        if room is not None:
            return self._largest_within(room - self._shared_bytes)
        return choose(self.options, most_mse - self.training_mse)

    def mse(self, chosen: Mapping[str, Option]) -> float:
        """Expected squared difference to the photos."""
        return self.training_mse + sum(option.mse for option in chosen.values())

    def n_bytes(self, chosen: Mapping[str, Option]) -> float:
        """Expected bytes of the file, without what every file has."""
        return self._shared_bytes + sum(option.n_bytes for option in chosen.values())

    @property
    def coarsest_bytes(self) -> float:
        """Expected bytes when rounding costs `COARSEST_LOSS`."""
        return self.n_bytes(self._at(COARSEST_LOSS))

    def most_important(self, share: float) -> StoredSet:
        """That part of the set with the largest blend weight."""
        return self.stored.select(largest(self.importance, max(1, int(share * len(self.stored)))))

    @property
    def _shared_bytes(self) -> float:
        return 0.0 if self.stored.networks is None else self.stored.networks.n_weights() * LAYER_BITS / 8

    def _largest_within(self, n_bytes: float) -> dict[str, Option]:
        """The choice that loses least among those of at most `n_bytes`; the coarsest when none is small enough."""
        low, high = math.log(0.005), math.log(COARSEST_LOSS)
        best = self._at(COARSEST_LOSS)
        for _ in range(20):
            middle = 0.5 * (low + high)
            chosen = self._at(math.exp(middle))
            if sum(option.n_bytes for option in chosen.values()) <= n_bytes:
                best, high = chosen, middle
            else:
                low = middle
        return self._filled(best, n_bytes)

    def _filled(self, chosen: dict[str, Option], n_bytes: float) -> dict[str, Option]:
        """The choice with what finer options still fit, the ones that save most error a byte first: one multiplier for
        all parameters leaves room.
        """
        while True:
            room = n_bytes - sum(option.n_bytes for option in chosen.values())
            finer = [
                (name, option)
                for name, options in self.options.items()
                for option in options
                if option.mse < chosen[name].mse and option.n_bytes <= chosen[name].n_bytes + room
            ]
            if not finer:
                return chosen
            name, option = max(
                finer,
                key=lambda pair: (
                    (chosen[pair[0]].mse - pair[1].mse) / max(pair[1].n_bytes - chosen[pair[0]].n_bytes, 1.0)
                ),
            )
            chosen = chosen | {name: option}

    def _at(self, decibels: float) -> dict[str, Option]:
        return choose(self.options, budget_for(self.training_mse, decibels))


class FileStage:
    """Writes sets to one path."""

    def __init__(self, path: Path, surroundings: Surroundings, metadata: Metadata) -> None:
        self.path = path
        self._surroundings = surroundings
        self._metadata = metadata
        self._rates = fine_rates(surroundings)
        self._last: tuple[Gaussians, list[Measured]] | None = None

    def header_bytes(self, gaussians: Gaussians) -> int:
        """Bytes of a file before the first of such Gaussians."""
        return len(encode_kino(gaussians.select(torch.arange(0, device=gaussians.device)), metadata=self._metadata))

    def write(
        self, gaussians: Gaussians, settings: Resolved, target: int | None = None
    ) -> tuple[StageReport, dict[str, str]]:
        """Write canonical `gaussians`, rounded; within `target` bytes if that is given and can be met.

        Gives the report, and in words how each parameter is stored.
        """
        began = time.monotonic()
        candidates, overhead, steps = self._candidates(gaussians, settings), 0.0, 2 * settings.tune_steps
        if target is not None:
            overhead = self.header_bytes(gaussians)
        for left in reversed(range(FITTING_RUNS)):
            room = None if target is None else TARGET_MARGIN * target - overhead
            measured, chosen = self._best(candidates, settings.rounding_loss, room)
            n_bytes = self._write_tuned(measured.stored, chosen, steps)
            if target is None or n_bytes <= target or left == 0:
                break
            # What the estimate missed is known now. Coarser numbers pay for it, and the least important Gaussians only
            # for what the coarsest cannot.
            overhead = n_bytes - measured.n_bytes(chosen)
            share = (TARGET_MARGIN * target - overhead) / measured.coarsest_bytes
            if share < 1.0:
                measured = self._measure(measured.most_important(max(share, LEAST_SHARE)))
            candidates, steps = [measured], settings.tune_steps
        seconds = time.monotonic() - began
        coding = {name: _coding_words(option) for name, option in chosen.items()}
        if measured.stored.networks is not None:
            coding["networks"] = f"{measured.stored.networks.n_weights():,} weights of {LAYER_BITS} bits"
        return self._report(n_bytes, seconds, ", ".join(f"{name} {words}" for name, words in coding.items())), coding

    def write_exact(self, gaussians: Gaussians) -> tuple[StageReport, dict[str, str]]:
        """Write `gaussians` as float32."""
        began = time.monotonic()
        n_bytes = write_kino(self.path, gaussians, metadata=self._metadata)
        return self._report(n_bytes, time.monotonic() - began, "not rounded"), {}

    def _report(self, n_bytes: int, seconds: float, note: str) -> StageReport:
        decoded = read_kino(self.path).gaussians.to(self._surroundings.device)
        report = StageReport("file", len(decoded), n_bytes, self._surroundings.evaluate(decoded), seconds, note)
        self._surroundings.say(f"file: {n_bytes:,} bytes, {report.quality.psnr:.2f} dB, {seconds:.0f} s; {note}")
        return report

    def _candidates(self, gaussians: Gaussians, settings: Resolved) -> list[Measured]:
        """The ways to store the appearance, tuned alike; kept until another set is asked about."""
        if self._last is not None and self._last[0] is gaussians:
            return self._last[1]
        sets = [] if settings.appearance == "networks" else [StoredSet(gaussians)]
        if settings.appearance != "harmonics":
            importance = score(gaussians, self._surroundings, IMPORTANCE_VIEWS).blend_weight
            networks, latents = fit_networks(gaussians, importance, self._surroundings.seed)
            sets.append(StoredSet(gaussians, latents, networks))
            sets = [self._tuned(stored, settings.tune_steps) for stored in sets]
        self._last = gaussians, [self._measure(stored) for stored in sets]
        return self._last[1]

    def _best(self, candidates: list[Measured], loss: float, room: float | None) -> tuple[Measured, dict[str, Option]]:
        """The candidate with the fewest bytes for the same error; given room, the one with the least error."""
        least = min(measured.training_mse for measured in candidates)
        most_mse = least + budget_for(least, loss)
        found = [(measured, measured.choose(most_mse, room)) for measured in candidates]
        if room is not None:
            return min(found, key=lambda pair: pair[0].mse(pair[1]))
        # What cannot reach the error at all is taken only when there is nothing else.
        return min(found, key=lambda pair: (pair[0].mse(pair[1]) > 1.001 * most_mse, pair[0].n_bytes(pair[1])))

    def _measure(self, stored: StoredSet) -> Measured:
        # Tuning has left some behind that hardly any view sees any more.
        weight = score(stored.gaussians, self._surroundings, IMPORTANCE_VIEWS).blend_weight
        stored, importance = stored.select(weight > 0), weight[weight > 0]
        probe = Probe(stored.gaussians, self._surroundings)
        options = measure_options(stored, probe, importance, self._surroundings.seed)
        return Measured(stored, importance, options, probe.training_mse)

    def _tuned(self, stored: StoredSet, steps: int) -> StoredSet:
        tunable = TunableSet(stored, self._rates)
        self._surroundings.fine_tune(tunable, steps)
        return tunable.tuned()

    def _write_tuned(self, stored: StoredSet, chosen: dict[str, Option], steps: int) -> int:
        tunable = QuantisedGaussians(stored, make_plan(stored, chosen), self._rates)
        self._surroundings.fine_tune(tunable, steps)
        return tunable.write(self.path, self._metadata)


def _coding_words(option: Option) -> str:
    if option.palette is None:
        return f"{option.bits} bits"
    return "palette " + " x ".join(str(len(book)) for book in option.palette.codebooks)
