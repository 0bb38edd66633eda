"""Re-rolls: another attempt at a job whose result was flagged, with another seed by a stated rule. Pure.

    seed of re-roll n = the first 31 bits of SHA-256(the job's key, 32 bytes + n as 4 bytes, the highest first)

It depends on nothing that a crash could lose, so a re-roll that is begun again is the same one. 31 bits: models take
signed 32-bit seeds, and few take larger ones.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from falbatch.core.identity import canonical_json, input_of

if TYPE_CHECKING:
    from falbatch.core.model import JobKey

SEED: Final = "seed"
"""The member of an input that is replaced, where it is there and an integer."""


def seed_of(key: JobKey, roll: int) -> int:
    """The seed of re-roll number `roll` (from 1) of a job."""
    return int.from_bytes(hashlib.sha256(key + roll.to_bytes(4)).digest()[:4]) >> 1


def rolled_seed(input_json: bytes, key: JobKey, roll: int) -> int | None:
    """What a re-roll sends in place of its input's seed; None where it sends the input as it is: before the first one,
    and where the input has no integer seed. The model draws a new one then by itself, and not every model takes one.
    """
    if roll == 0:
        return None
    seed = input_of(input_json).get(SEED)
    return seed_of(key, roll) if isinstance(seed, int) and not isinstance(seed, bool) else None


def with_seed(input_json: bytes, seed: int | None) -> bytes:
    """A stored input with another seed, canonical JSON again; as it is with None."""
    return input_json if seed is None else canonical_json(input_of(input_json) | {SEED: seed})
