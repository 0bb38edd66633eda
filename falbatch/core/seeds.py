"""Seeds that follow from what a job is. Pure.

    seed of turn n = the first 31 bits of SHA-256(a job key, 32 bytes + n as 4 bytes, the highest first)

Turn n is re-roll n: another attempt at a job whose result was flagged. It depends on nothing that a crash could lose,
so a re-roll that is begun again is the same one. `seed: {derive: true}` in a manifest is turn 0:

    {derive: true}  ─render─▶  {"falbatch:derive": true}  ─key and replica are settled─▶  a number, and the job's key

The key of the input with the mark in it decides the number. So a job has the same seed in every run and on every
machine, and equal jobs (replicas) have different ones: each paid input is its own, and a lost submit is surely found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.identity import canonical_json, input_of

if TYPE_CHECKING:
    from falbatch.core.model import JobKey

SEED: Final = "seed"
"""The member of an input that a re-roll replaces, where it says a whole number."""

SEED_MOST: Final = 2**31 - 1
"""The largest that is made here."""

MARK: Final[Mapping[str, bool]] = {"falbatch:derive": True}
MARK_JSON: Final = b'{"falbatch:derive":true}'
"""The mark in canonical JSON. No text holds these bytes: its quotes have a backslash before them."""

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}")
"""A seed as text. Numbers that are longer are no seeds."""

_MARKER: Final = re.compile(re.escape(MARK_JSON))


def seed_of(key: JobKey, turn: int) -> int:
    """A seed that follows from `key` and `turn` alone: models take signed 32-bit seeds, and few take larger ones."""
    return int.from_bytes(hashlib.sha256(key + turn.to_bytes(4)).digest()[:4]) >> 1


def rolled_seed(input_json: bytes, key: JobKey, roll: int) -> int | None:
    """What a re-roll sends in place of its input's seed; None where it sends the input as it is: before the first one,
    and where the input has no seed. The model draws a new one then by itself, and not every model takes one.
    """
    return None if roll == 0 or asked_seed(input_of(input_json)) is None else seed_of(key, roll)


def can_roll(input_json: bytes) -> bool:
    """False for an input whose seed is none that could be replaced: sent again it would give the same, at its price."""
    given = input_of(input_json)
    return given.get(SEED) is None or asked_seed(given) is not None


def asked_seed(given: Mapping[str, Any]) -> int | None:
    """The seed of an input, also as 7.0 (rows of a table often have it so) or as the text "7"; None for none."""
    seed = given.get(SEED)
    if isinstance(seed, float) and seed.is_integer():
        return int(seed)
    if isinstance(seed, str):
        return int(seed) if _WHOLE.fullmatch(seed.strip()) else None
    return named_seed(given)


def named_seed(output: Any) -> int | None:
    """The seed that a result names as the one that made it; None for none."""
    seed = output.get(SEED) if isinstance(output, Mapping) else None
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def with_seed(input_json: bytes, seed: int | None) -> bytes:
    """A stored input with another seed, canonical JSON again; as it is with None."""
    return input_json if seed is None else canonical_json(input_of(input_json) | {SEED: seed})


def is_derived(value: object) -> bool:
    """True for `{derive: …}` as it is written; only `true` makes sense there. An input as a whole that looks like it
    has a field of that name."""
    return isinstance(value, Mapping) and set(value) == {"derive"}


def with_derived_seed(input_json: bytes, key: JobKey) -> bytes:
    """A rendered input with its seed; `key` is that of the input with the mark. Canonical JSON again."""
    return _MARKER.sub(str(seed_of(key, 0)).encode(), input_json)
