"""What fal said and says to everybody alike, kept between commands with its date: schemas, prices, estimates.

A cache only: whatever is wrong with it (no such folder, no room, half a file, somebody else's) is as if it were empty.
Nothing secret and nothing of a batch is ever in it. Each fal has a folder of its own in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falbatch.exactjson import is_nested_within, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

FRESH_S: Final = 24 * 3600.0
"""What was heard within a day is not asked for again; what is older still serves when fal does not answer."""

VARIABLE: Final = "FALBATCH_CACHE"
"""Names the folder, in place of the platform's own."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_BYTES_MOST: Final = 64 * 1024 * 1024
_LEVELS_MOST: Final = 250
_LATEST: Final = 253_402_300_799.0 - 86400
"""Unix seconds of the last day but one that has a year of four digits, here and in every time zone."""


@dataclass(frozen=True, slots=True)
class Cached:
    """One thing that fal said."""

    at: float
    """Unix seconds."""
    value: Any
    """A JSON value."""

    def is_fresh(self, now: float) -> bool:
        """May it serve without being asked for again, at `now` (Unix seconds)?"""
        return 0 <= now - self.at < FRESH_S


class Cache:
    """A folder of small JSON files; safe for several programs at a time. Nothing here raises."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` None keeps nothing."""
        self._folder = folder

    def get(self, kind: str, name: str) -> Cached | None:
        """What is kept of `kind` (`schema`, `price` …) under `name`, whatever its age."""
        if self._folder is None:
            return None
        try:
            path = self._path(self._folder, kind, name)
            if path.stat().st_size > _BYTES_MOST:
                return None
            kept = parse_json(path.read_bytes())
        except (OSError, ValueError):
            return None
        at = kept.get("at") if isinstance(kept, dict) and kept.get("name") == name else None
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= _LATEST:
            return None
        value = kept.get("value")
        return Cached(float(at), value) if is_nested_within(value, _LEVELS_MOST) else None

    def put(self, kind: str, name: str, value: Any, *, at: float) -> None:
        """Keep a JSON value, heard at `at` (Unix seconds)."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError, TypeError, ValueError, RecursionError):
            path = self._path(self._folder, kind, name)
            body = json.dumps({"name": name, "at": at, "value": value}).encode()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(body)
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    @staticmethod
    def _path(folder: Path, kind: str, name: str) -> Path:
        return folder / kind / f"{_readable(name)}.json"


def open_cache(env: Mapping[str, str], fal: str) -> Cache:
    """The cache of the fal that is found at `fal` (a base URL)."""
    named = env.get(VARIABLE)
    if named:
        root = Path(named)
    else:
        from platformdirs import user_cache_path  # a few milliseconds that most commands need not spend

        try:
            root = user_cache_path("falbatch", appauthor=False)
        except RuntimeError:  # nobody's home
            return Cache(None)
    return Cache(root / _readable(fal.partition("://")[2] or fal))


def _readable(text: str) -> str:
    """A file name that people can tell apart, and that no two texts share."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{_UNSAFE.sub('-', text).strip('-.')[:80]}-{digest}"
