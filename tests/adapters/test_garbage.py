"""Garbage is looked for rarely while runs go on, and as before afterwards."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.garbage import OBJECTS, looked_for_rarely

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_runs_side_by_side_share_it_and_the_last_puts_it_back() -> None:
    gc.set_threshold(700, 9, 8)
    first, second = looked_for_rarely(), looked_for_rarely()
    with first:
        assert gc.get_threshold() == (OBJECTS, 9, 8)
        second.__enter__()
    assert gc.get_threshold() == (OBJECTS, 9, 8), "the second goes on"
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 9, 8)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (OBJECTS + 1, 10, 10)])
def test_rarer_looks_that_the_process_chose_stay(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with looked_for_rarely():
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen
