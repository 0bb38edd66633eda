"""What a job *is*: its canonical JSON and its key. Two runs, machines or edits that agree on these agree on the job.

Row order, names, limits, comments and times are not part of a key (design §5.2).
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any, Final

import orjson

from falbatch.core.model import JobKey, JsonObject, Mode
from falbatch.exactjson import parse_json

KEY_VERSION: Final = 1
"""Part of every key: raised only if the recipe below must change, which makes every job new."""


def canonical_json(value: Any) -> bytes:
    """`value` as JSON with sorted keys and no spaces, integers exact whatever their size.

    The result is also what travels to fal as the body of the submit, so what is hashed is what is sent.
    Raises `TypeError` for anything that JSON cannot hold.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Only integers beyond 64 bits come here: which encoder runs depends on the value alone.
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()


def job_key(endpoint: str, mode: Mode, input_json: bytes, replica: int) -> JobKey:
    """SHA-256 of the canonical JSON of (key version, endpoint, mode, input, replica).

    `input_json` is `canonical_json(input)`. `replica` counts the jobs that are alike in all else, from 0.
    The object is put together from its parts in key order, which spares writing the input twice.
    """
    head, tail = _frame(endpoint, mode)
    canonical = b'%s%s%s"replica":%d,"version":%d}' % (head, input_json, tail, replica, KEY_VERSION)
    return JobKey(hashlib.sha256(canonical).digest())


@functools.lru_cache(1024)
def _frame(endpoint: str, mode: Mode) -> tuple[bytes, bytes]:
    """What stands before and after the input, for all jobs of an endpoint."""
    return b'{"endpoint":%s,"input":' % canonical_json(endpoint), b',"mode":%s,' % canonical_json(mode.value)


def input_of(input_json: bytes) -> JsonObject:
    """The input object back from its canonical JSON."""
    value = parse_json(input_json)
    if not isinstance(value, dict):
        raise TypeError("a job's input is a JSON object")
    return value
