"""How pictures are made and sent: target frames a second, resolution, JPEG or WebP, quality, depth compositing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kinosplat.viewer.controls.build import PlainPanel
from kinosplat.viewer.encode import Coding

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

CODINGS: dict[str, Coding] = {"JPEG": "jpeg", "WebP": "webp"}


class StreamPanel(PlainPanel):
    """Sets the session's `StreamSettings`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        now, gui = session.stream.settings, session.client.gui
        with gui.add_folder("Streaming", expand_by_default=False):
            fps = gui.add_slider(
                "Target FPS",
                5,
                60,
                1,
                int(now.target_fps),
                hint="Frames a second while something moves, at most and if possible.",
            )
            adaptive = gui.add_checkbox(
                "Adaptive size", now.adaptive, hint="Make pictures smaller while moving, until the target is reached."
            )
            longest = gui.add_slider(
                "Longest side", 256, 3840, 64, now.longest_side, hint="Pixels, also of pictures that stand still."
            )
            coding = gui.add_dropdown(
                "Coding", list(CODINGS), initial_value="JPEG", hint="WebP is smaller and takes longer."
            )
            quality = gui.add_slider(
                "Quality", 30, 100, 1, now.quality, hint="While moving; still pictures have 92 or more."
            )
            composite = gui.add_checkbox(
                "Objects inside", now.composite, hint="Cameras, path and crop box hide behind what is nearer."
            )
        fps.on_update(lambda _: self._set(target_fps=float(fps.value)))
        adaptive.on_update(lambda _: self._set(adaptive=adaptive.value))
        longest.on_update(lambda _: self._set(longest_side=longest.value))
        coding.on_update(lambda _: self._set(coding=CODINGS[coding.value]))
        quality.on_update(lambda _: self._set(quality=quality.value))
        composite.on_update(lambda _: self._set(composite=composite.value))

    def _set(self, **changes: Any) -> None:
        self.session.stream.set_settings(replace(self.session.stream.settings, **changes))
