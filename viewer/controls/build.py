"""Which panels there are and in which tab they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

QUIET = (62, 70, 84)
"""Colour of buttons that are not the one most visitors look for."""


class Panel(Protocol):
    """Some controls of one session; made inside of the tab they stand in."""

    def tick(self, now: float) -> None:
        """A few times a second."""

    def restore(self, query: dict[str, str]) -> None:
        """Take what a shared link says."""

    def link(self) -> dict[str, str]:
        """What a shared link is to say."""

    def close(self) -> None:
        """The page is gone."""


class PlainPanel:
    """A panel that needs none of these."""

    def tick(self, now: float) -> None:
        """Nothing changes by itself."""

    def restore(self, query: dict[str, str]) -> None:
        """Nothing is in links."""

    def link(self) -> dict[str, str]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Nothing to end."""


def show_value(control: Any, value: object) -> None:
    """Give a control of viser's another value than the visitor did; its callbacks run with no client."""
    control.value = value


def on_visitor(control: Any, then: Callable[[], None]) -> None:
    """Call `then` when the visitor gives the control another value, and not when `show_value` does."""

    def changed(event: Any) -> None:
        if event.client_id is not None:
            then()

    control.on_update(changed)


def build_panels(session: Session) -> list[Panel]:
    """All panels of a page, in tabs."""
    from viser import Icon

    from kinosplat.viewer.controls.benchmark import BenchmarkPanel
    from kinosplat.viewer.controls.camera import CameraPanel
    from kinosplat.viewer.controls.output import OutputPanel
    from kinosplat.viewer.controls.path import PathPanel
    from kinosplat.viewer.controls.photos import PhotosPanel
    from kinosplat.viewer.controls.region import RegionPanel
    from kinosplat.viewer.controls.rendering import RenderingPanel
    from kinosplat.viewer.controls.statistics import StatisticsPanel
    from kinosplat.viewer.controls.stream import StreamPanel
    from kinosplat.viewer.controls.time import TimePanel
    from kinosplat.viewer.controls.training import TrainingPanel

    gui = session.client.gui
    panels: list[Panel] = []
    with session.client.atomic():
        if session.training is not None:
            panels.append(TrainingPanel(session, session.training))
        if session.playback is not None:
            panels.append(TimePanel(session))
        tabs = gui.add_tab_group()
        with tabs.add_tab("View", Icon.EYE):
            panels += [OutputPanel(session), RenderingPanel(session)]
            with session.subject.turn():
                has_gaussians = session.subject.gaussians() is not None
            if has_gaussians:
                panels.append(RegionPanel(session))
        with tabs.add_tab("Camera", Icon.CAMERA):
            panels += [CameraPanel(session), PathPanel(session)]
            if session.subject.photos is not None:
                panels.append(PhotosPanel(session, session.subject.photos))
        with tabs.add_tab("Speed", Icon.GAUGE):
            panels += [StatisticsPanel(session), StreamPanel(session), BenchmarkPanel(session)]
    return panels
