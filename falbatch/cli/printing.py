"""What every command does with its results: lines for people, or JSON for programs, on stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def print_lines(lines: Iterable[str]) -> None:
    """One after the other."""
    for line in lines:
        print(line)


def print_json(record: dict[str, Any]) -> None:
    """One object, on one line."""
    print(json.dumps(record, ensure_ascii=False))
