"""Key frames stay in the order of their seconds whatever is done to them, and every change can be taken back."""

from __future__ import annotations

import pytest

from kinosplat.errors import InputError
from kinosplat.viewer.path_edit import PathEdit
from viewer.toys import toy_cameras


def three() -> PathEdit:
    edit = PathEdit()
    for i, camera in enumerate(toy_cameras()[:3]):
        edit.add(camera.at(0.1 * i), 2.0)
    return edit


def seconds(edit: PathEdit) -> list[float]:
    return [key.seconds for key in edit.keys]


def test_views_are_added_at_the_end_and_chosen() -> None:
    edit = three()
    assert seconds(edit) == [0.0, 2.0, 4.0]
    assert edit.chosen == 2


def test_the_chosen_one_is_replaced_at_its_second() -> None:
    edit = three()
    edit.choose(1)
    camera = toy_cameras()[5].at(0.9)
    edit.replace(camera)
    assert edit.keys[1].position == pytest.approx(camera.position.tolist())
    assert (edit.keys[1].seconds, edit.keys[1].time, edit.chosen) == (2.0, 0.9, 1)


def test_another_second_may_bring_it_before_others() -> None:
    edit = three()
    last = edit.choose(2)
    edit.move(1.0)
    assert seconds(edit) == [0.0, 1.0, 2.0]
    assert edit.chosen == 1
    assert edit.keys[1].position == last.position
    with pytest.raises(InputError, match="Another key frame is at 2 s"):
        edit.move(2.0)
    edit.set_moment(0.7)
    assert edit.keys[1].time == 0.7


def test_deleting_chooses_the_one_before() -> None:
    edit = three()
    edit.choose(1)
    edit.delete()
    assert (seconds(edit), edit.chosen) == ([0.0, 4.0], 0)
    edit.delete()
    edit.delete()
    assert (edit.keys, edit.chosen) == ((), None)
    with pytest.raises(InputError, match="no key frame yet"):
        edit.delete()


def test_every_change_is_taken_back() -> None:
    edit = three()
    edit.choose(0)
    before = edit.keys
    edit.delete()
    edit.become(())
    for _ in range(2):
        edit.undo()
    assert (edit.keys, edit.chosen) == (before, 0)
    for _ in range(9):
        edit.undo()
    assert edit.keys == ()
    with pytest.raises(InputError, match="no key frame yet"):
        edit.path(None)
