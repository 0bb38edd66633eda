"""How often Python looks for garbage in cycles: after 700 more objects, it says. A run makes thousands a second, nearly
all of them gone without such a look, which goes through the living ones: it cost a sixth of a job's processor time."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS: Final = 50_000
"""Between two looks, in place of 700: some 10 MB of cycles at most, and as cheap as no look at all (measured)."""


class _Rarely:
    """How many runs of this process wish it, and what was before the first."""

    runs = 0
    before = (0, 0, 0)


@contextmanager
def looked_for_rarely() -> Iterator[None]:
    """A block in which garbage is looked for rarely. Who chose rarer looks for the process, or none, keeps them."""
    if _Rarely.runs == 0:
        _Rarely.before = gc.get_threshold()
        first, *others = _Rarely.before
        if 0 < first < OBJECTS:
            gc.set_threshold(OBJECTS, *others)
    _Rarely.runs += 1
    try:
        yield
    finally:
        _Rarely.runs -= 1
        if _Rarely.runs == 0:
            gc.set_threshold(*_Rarely.before)
