"""From the bytes of a YAML file to plain values and the places they stand at. The one module that knows yaml.

Plain (unquoted) words mean what a reader of JSON expects, and nothing else; quoted text is always text:

| Written                          | Is                                                                |
|----------------------------------|-------------------------------------------------------------------|
| true True TRUE, false False FALSE| a boolean; `yes`, `no`, `on`, `off`, `y`, `n` stay text           |
| null Null NULL ~ and nothing     | null                                                              |
| 0, 12, -3                        | an integer, exact at any size                                     |
| 001, 1_000, 0x1F, 0o7, +5, 12:30 | text: ids, codes and times keep every character                   |
| 1.5, .5, -2.5E-3, 1e3            | a float; `1.`, `.inf` and `.nan` stay text                        |
| 2024-01-01                       | text: there are no dates                                          |

Anchors, aliases and `<<` work, circles do not. Two equal keys in one mapping, a key that is not text, and
tags other than !!str !!int !!float !!bool !!null !!seq !!map are mistakes. Bounds: MAX_BYTES, MAX_DEPTH,
MAX_NODES.
"""

from __future__ import annotations

import gc
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import yaml

from falbatch.core.problems import ProblemLog, shown
from falbatch.core.yamlsyntax import QUOTE_TEMPLATE, explain
from falbatch.errors import ManifestError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML built without libyaml: the same answers, ten times slower
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]  # same API, without libyaml

Path = tuple[str | int, ...]
"""Where in the document: mapping keys and 0-based list entries, from the top."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Bytes of a manifest: half a minute of parsing; a list longer than that belongs into CSV or JSONL."""
MAX_DEPTH: Final = 64
"""Levels of nesting: no model's input comes near it, and deeper ones could overflow the parser's stack."""
MAX_NODES: Final = 5_000_000
"""Values with every alias counted as if it were written out: stops "a billion laughs" before memory does."""
_LONG: Final = 1000
"""Entries from which a list keeps the places of its entries only: they would cost more than the values."""

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = _TAG + "merge"
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_INT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")

_BIG_LIST: Final = "put long lists into a CSV or JSONL file and name it: rows: data.csv"


class Place(NamedTuple):
    """Where something stands, both 1-based."""

    line: int
    column: int


class _TooDeepError(Exception):
    def __init__(self, mark: yaml.Mark) -> None:
        super().__init__()
        self.mark = mark


class _Loader(_BaseLoader):
    """Composes nodes only. Its scalars are those of the module docstring."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (PyYAML fills it per class)
    depth = 0

    # Both loaders call this pair around each node; it is the one place to stop before the C stack overflows.
    def descend_resolver(self, current_node: Any, current_index: Any) -> None:  # noqa: ARG002
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeepError(current_node.start_mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


def _whole(pattern: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?:{pattern.pattern})$")


_Loader.add_implicit_resolver(_TAG + "bool", _whole(_BOOL), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "null", _whole(_NULL), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "int", _whole(_INT), list("-0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _whole(_FLOAT), list("-.0123456789"))
_Loader.add_implicit_resolver(_MERGE, re.compile("<<$"), ["<"])


class Marks:
    """Where each key and value of a document stands. Made by `load`; read-only afterwards."""

    __slots__ = ("_root",)

    def __init__(self, root: yaml.Node) -> None:
        self._root = root

    def value(self, path: Path) -> Place:
        """Where the value at `path` begins; of the longest part of `path` that exists."""
        return _place(self._find(path)[1])

    def key(self, path: Path) -> Place:
        """Where the key (or list entry) at `path` stands; of the longest part of `path` that exists."""
        key, value = self._find(path)
        return _place(value if key is None else key)

    def entries(self, path: Path) -> list[Place]:
        """The places of all entries of the list at `path`."""
        node = self._find(path)[1]
        return [_place(entry) for entry in node.value] if isinstance(node, yaml.SequenceNode) else []

    def text(self, path: Path, line: int) -> Place:
        """The place of line `line` (1-based) of the text at `path`; exact for literal blocks (`|`)."""
        node = self._find(path)[1]
        start = _place(node)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            return Place(start.line + (line if node.style == "|" else 1), 0)
        return start

    def _find(self, path: Path) -> tuple[yaml.Node | None, yaml.Node]:
        key: yaml.Node | None = None
        node = self._root
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
        return key, node


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode):
        inside = isinstance(step, int) and 0 <= step < len(node.value)
        return (None, node.value[step]) if inside else None
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == step and key.tag != _MERGE:
            return key, value
    merged = (target for key, value in node.value if key.tag == _MERGE for target in _targets(value))
    return next((found for target in merged if (found := _child(target, step))), None)


def _targets(node: yaml.Node) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def load(text: bytes, *, source: str) -> tuple[dict[str, Any], Marks]:
    """The top-level mapping of a YAML file, and where its parts stand.

    Aliased parts are the same objects: do not change what comes back. Raises ManifestError with all problems.
    """
    decoded = _decode(text, source)
    with _gc_paused():
        root = _compose(decoded, source)
        if not isinstance(root, yaml.MappingNode):
            raise ManifestError([Problem(source, *_place(root), "a manifest is a mapping of keys to values",
                                         "start with: endpoint: fal-ai/flux/dev")])  # fmt: skip
        builder = _Builder(source)
        data = builder.build(root, 1)[0]
    builder.problems.raise_if_any()
    for node in builder.long_lists:
        node.value = [yaml.ScalarNode(_TAG + "str", "", entry.start_mark) for entry in node.value]
    return data, Marks(root)


def _decode(text: bytes, source: str) -> str:
    if len(text) > MAX_BYTES:
        size = f"{len(text) / 2**20:,.0f} MiB"
        _refuse(source, f"the manifest has {size}; at most {MAX_BYTES // 2**20} MiB are read", _BIG_LIST)
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(source, "this is UTF-16 text", "save the manifest as UTF-8")
    if b"\0" in text:
        _refuse(source, "this is a binary file, not a manifest", "name a YAML file")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - text.rfind(b"\n", 0, error.start)
        problem = Problem(source, line, column, "this is not UTF-8 text", "save the manifest as UTF-8")
        raise ManifestError([problem]) from error


def _refuse(source: str, what: str, hint: str) -> NoReturn:
    raise ManifestError([Problem(source, 0, 0, what, hint)])


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Millions of new objects, none of them garbage: looking for some would take half the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _compose(text: str, source: str) -> yaml.Node:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except _TooDeepError as error:
        what = f"values are nested more than {MAX_DEPTH} deep"
        raise ManifestError([Problem(source, error.mark.line + 1, error.mark.column + 1, what)]) from error
    except yaml.MarkedYAMLError as error:
        raise ManifestError([_syntax_problem(error, text, source)]) from error
    except yaml.reader.ReaderError as error:
        what = f"the character U+{int(error.character):04X} may not stand in YAML"
        line = text.count("\n", 0, max(text.find(chr(error.character)), 0)) + 1
        hint = 'write it as an escape in double quotes, such as "\\x07"'
        raise ManifestError([Problem(source, line, 0, what, hint)]) from error
    if root is None:
        _refuse(source, "the manifest is empty", "start with: endpoint: fal-ai/flux/dev")
    return root


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, source: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    said = f"{error.context or ''} {error.problem or ''}".strip()
    lines = text.splitlines()
    what, hint = explain(said, lines[line - 1] if 0 < line <= len(lines) else "", column)
    return Problem(source, line, column, f"not valid YAML: {what}", hint)


class _Builder:
    """Makes values of nodes, once per node however often it is aliased, noting every mistake on the way."""

    def __init__(self, source: str) -> None:
        self.problems = ProblemLog()
        self.long_lists: list[yaml.SequenceNode] = []
        self._source = source
        self._nodes = 0
        self._open: set[int] = set()
        self._done: dict[int, tuple[Any, int, int]] = {}

    def build(self, node: yaml.Node, depth: int) -> tuple[Any, int]:
        """The value of `node`, and how many levels it has."""
        self._nodes += 1
        if isinstance(node, yaml.ScalarNode):
            return (node.value if node.tag == _TAG + "str" else self._scalar(node)), 0
        known = self._done.get(id(node))
        if known:
            value, size, height = known
            self._nodes += size - 1
        else:
            value, height = self._collection(node, depth)
        if self._nodes > MAX_NODES:
            raise ManifestError(
                [self._problem(node, f"more than {MAX_NODES:,} values, aliases written out", _BIG_LIST)]
            )
        if depth + height > MAX_DEPTH:
            raise ManifestError([self._problem(node, f"values are nested more than {MAX_DEPTH} deep")])
        return value, height

    def _collection(self, node: yaml.Node, depth: int) -> tuple[Any, int]:
        if id(node) in self._open:
            raise ManifestError(
                [self._problem(node, "this anchor contains itself through an alias", "break the circle")]
            )
        self._open.add(id(node))
        before = self._nodes
        value: Any
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "map")
            value, height = self._mapping(node, depth)
        else:
            self._check_tag(node, "seq")
            value, height = self._sequence(node, depth)
        self._open.discard(id(node))
        self._done[id(node)] = (value, self._nodes - before + 1, height)
        return value, height

    def _sequence(self, node: yaml.Node, depth: int) -> tuple[list[Any], int]:
        values, height = [], 0
        for entry in node.value:
            value, below = self.build(entry, depth + 1)
            values.append(value)
            height = max(height, below)
        if len(values) > _LONG and isinstance(node, yaml.SequenceNode):
            self.long_lists.append(node)
        return values, height + 1

    def _mapping(self, node: yaml.Node, depth: int) -> tuple[dict[str, Any], int]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        height = 0
        for key_node, value_node in node.value:
            value, below = self.build(value_node, depth + 1)
            height = max(height, below)
            if key_node.tag == _MERGE:
                self._merge(merged, value, value_node)
                continue
            key = self._key(key_node)
            if key is not None and key in lines:
                what = f'"{key}" is written twice in this mapping; first on line {lines[key]}'
                self._note(key_node, what, "keep one")
            elif key is not None:
                own[key] = value
                lines[key] = key_node.start_mark.line + 1
        if merged:
            own = {**merged, **own}
        return own, height + 1

    def _merge(self, into: dict[str, Any], value: Any, node: yaml.Node) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                self._note(node, "<< takes a mapping, or a list of mappings")
                return
            for key, entry in part.items():
                into.setdefault(key, entry)

    def _key(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
            return str(node.value)
        if isinstance(node, yaml.ScalarNode):
            hint = f'put quotes around it: "{node.value}"'
            self._note(node, f"a key must be text, not {node.value or 'empty'}", hint)
        else:
            hint = QUOTE_TEMPLATE if isinstance(node, yaml.MappingNode) else ""
            self._note(node, "a key must be text, not a list or mapping", hint)
        return None

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        match kind:
            case "null" if _NULL.fullmatch(text):
                return None
            case "bool" if _BOOL.fullmatch(text):
                return text[0] in "tT"
            case "int" if _INT.fullmatch(text):
                return self._number(node, int, text)
            case "float" if _FLOAT.fullmatch(text):
                return self._number(node, float, text)
            case "merge":  # `<<` as a value is only text
                return text
            case "null" | "bool" | "int" | "float":
                self._note(node, f"{shown(text)} does not fit the tag !!{kind}")
            case _:
                self._unknown_tag(node)
        return None

    def _number(self, node: yaml.Node, kind: type[int | float], text: str) -> int | float | None:
        try:
            number = kind(text)
        except ValueError:  # Python's own bound on the digits of an integer
            number = float("inf")
        if number in (float("inf"), float("-inf")):
            self._note(node, "this number is too large", "put quotes around it to keep it as text")
            return None
        return number

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != _TAG + kind:
            self._unknown_tag(node)

    def _unknown_tag(self, node: yaml.Node) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._note(node, f"the tag {tag} is not known here", "remove it; quote the value if it is text")

    def _note(self, node: yaml.Node, what: str, hint: str = "") -> None:
        self.problems.add(self._problem(node, what, hint))

    def _problem(self, node: yaml.Node, what: str, hint: str = "") -> Problem:
        return Problem(self._source, *_place(node), what, hint)
