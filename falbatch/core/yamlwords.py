"""Values and words of others as parts of a YAML text: nothing in them can end a line, a quote or a comment, and no text
is taken for a template. What is written here is read back by `core/yamltext.py` as it was.

Texts stand in double quotes always, so that "5", "yes" and "null" stay texts.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.fileinputs import FILE_KEY, is_file_input
from falbatch.core.template import is_template

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH: Final = 16
"""Levels of a value that is written: models' inputs have a handful."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YAML_WORDS: Final = frozenset({"true", "false", "null"})
_OWN: Final = FILE_KEY.partition(":")[0] + ":"
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")


def quoted(text: str) -> str:
    """`text` in double quotes, on one line. Halves of characters, which no file can hold, become U+FFFD."""
    written = json.dumps(_SURROGATES.sub("\ufffd", text), ensure_ascii=False)
    return "".join(char if char.isprintable() else _escaped(char) for char in written)


def in_quotes(text: str) -> str:
    """`text` on one line in the quotes that leave it as it is, where some do: single ones around double ones."""
    is_plain = text.isprintable() and "'" not in text and ('"' in text or "\\" in text)
    return f"'{text}'" if is_plain else quoted(text)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def key(name: str) -> str:
    """`name` as a key: in quotes unless nobody could take it for anything else."""
    return name if _PLAIN_KEY.fullmatch(name) and name.lower() not in _YAML_WORDS else quoted(name)


def constant(value: Any) -> str:
    """A JSON value on one line, in YAML's flow style; texts as they are."""
    match value:
        case str():
            return quoted(value)
        case dict():
            return "{" + ", ".join(f"{key(name)}: {constant(entry)}" for name, entry in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(constant, value)) + "]"
        case _:
            return json.dumps(value)


def template_text(text: str) -> str:
    """A text that templates leave as it is: itself, or an expression that gives it."""
    return "{{ " + jinja_quoted(text) + " }}" if is_template(text) else text


def jinja_quoted(text: str) -> str:
    """`text` as a literal of Jinja's."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{escaped}"'


def input_value(value: Any) -> str | None:
    """A JSON value as a part of `input`, which is rendered to just that value; None for one that cannot be said there:
    too deep, or of the form of falbatch's own marks."""
    written = _for_input(value, 0)
    return None if written is _UNSAID else constant(written)


class _Unsaid:
    """What cannot stand in an input."""


_UNSAID: Final = _Unsaid()


def _for_input(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return _UNSAID
    match value:
        case str():
            return template_text(value)
        case dict():
            made = {name: _for_input(entry, depth + 1) for name, entry in value.items()}
            return _UNSAID if _is_mark(value) or _UNSAID in made.values() else made
        case list():
            entries = [_for_input(entry, depth + 1) for entry in value]
            return _UNSAID if _UNSAID in entries else entries
        case _:
            return value


def is_own(name: str) -> bool:
    """Whether a key is one that falbatch keeps for its own marks, such as FILE_KEY."""
    return name.startswith(_OWN)


def _is_mark(value: Mapping[str, Any]) -> bool:
    return is_file_input(value) or any(map(is_own, value)) or set(value) == {"derive"}
