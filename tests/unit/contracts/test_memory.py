"""Garbage between the stages of a long process: found, without going through what has come to stay again and again."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from contracts.memory import FREEZE_ABOVE, collect_garbage


class Node:
    """An object that can be part of a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def cycle() -> "weakref.ref[Node]":
    one, two = Node(), Node()
    one.other, two.other = two, one
    return weakref.ref(one)


def test_garbage_in_cycles_is_collected_each_time() -> None:
    for _ in range(3):
        garbage = cycle()
        collect_garbage()
        assert garbage() is None


def test_what_has_come_to_stay_is_gone_through_once() -> None:
    collect_garbage()
    set_aside = gc.get_freeze_count()
    assert set_aside > 0
    # Little has come since: it is looked at again, and nothing more is set aside.
    few = [Node() for _ in range(10)]
    collect_garbage()
    assert gc.get_freeze_count() <= set_aside
    assert len(gc.get_objects(generation=2)) < FREEZE_ABOVE * set_aside
    many = [Node() for _ in range(round(2 * FREEZE_ABOVE * set_aside))]
    collect_garbage()
    assert gc.get_freeze_count() > set_aside
    assert few
    assert many
