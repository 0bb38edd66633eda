"""Which of many things are taken: first `where`, then `sample`, then `limit`. The order is kept."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from falbatch.core.rows import Sample

T = TypeVar("T")


def choose(
    things: Iterable[T],
    *,
    where: Callable[[T], bool] | None = None,
    sample: Sample | None = None,
    limit: int | None = None,
) -> Iterator[T]:
    """The chosen `things`, lazily. A sample reads all of them first and holds `sample.n`; nothing else does."""
    chosen: Iterable[T] = filter(where, things) if where else things
    if sample:
        chosen = _sampled(chosen, sample)
    return itertools.islice(chosen, limit)


def _sampled(things: Iterable[T], sample: Sample) -> Iterator[T]:
    """Reservoir sampling (Vitter's algorithm R): each thing is as likely as any other."""
    draw = random.Random(sample.seed)  # noqa: S311  (repeatable is the point; nothing secret is drawn)
    kept: list[tuple[int, T]] = []
    for number, thing in enumerate(things):
        if number < sample.n:
            kept.append((number, thing))
        elif (slot := draw.randrange(number + 1)) < sample.n:
            kept[slot] = (number, thing)
    kept.sort(key=lambda pair: pair[0])
    for _, thing in kept:
        yield thing
