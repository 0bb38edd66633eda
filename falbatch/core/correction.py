"""What to write instead of a value that an endpoint will not take. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.checking import BOUNDS, kinds, printable
from falbatch.core.problems import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from falbatch.core.checking import InputFault


def correction(fault: InputFault, written: Any) -> str:
    """What to write instead. `written` is what the manifest has at the fault's place: a template, a value, or None."""
    template = written if isinstance(written, str) and "{{" in written else ""
    match fault.rule:
        case "unknown":
            return nearest(str(fault.path[-1]), fault.known) or _known(fault.known)
        case "required":
            alike = nearest(str(fault.path[-1]), fault.known).removeprefix("did you mean ").removesuffix("?")
            return f"is it {alike}?" if alike else f"add `{fault.path[-1]}:` to it"
        case "type":
            return _right_kind(fault, template) or f"write {kinds(fault.limit)}"
        case "enum" | "const" | "union":
            return _right_choice(fault, template) or "write one of those"
        case "minimum" | "maximum":
            return f"write {shown(fault.limit)}" if not template else f"the nearest is {shown(fault.limit)}"
        case "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf":
            return f"write a number that is {BOUNDS[fault.rule]} {shown(fault.limit)}"
        case "maxLength":
            cut = f"[:{fault.limit}]"
            return f"shorten it; in a template, {{{{ ({_expression(template) or '…'}){cut} }}}} cuts it"
        case _:
            return "see `falbatch schema`"


def _known(names: Sequence[str]) -> str:
    return f"known: {', '.join(sorted(names)[:12])}" if names else ""


def _expression(template: str) -> str:
    """What stands in a template that is one expression; "" for any other."""
    text = template
    inner = text[2:-2].strip()
    return inner if text.startswith("{{") and text.endswith("}}") and "{{" not in inner and "}}" not in inner else ""


_FILTERS: Final[Mapping[str, str]] = {"integer": "int", "number": "float", "string": "string"}


_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0"})


def _right_kind(fault: InputFault, template: str) -> str:
    value, types = fault.value, fault.limit
    wanted = next((kind for kind in types if kind != "null"), "null")
    expression = _expression(template)
    if isinstance(value, str) and wanted in {"integer", "number"}:
        if not _is_number(value, whole=wanted == "integer"):
            return ""
        if expression:
            return _as_number(expression, _FILTERS[wanted])
        if template.strip() != template:
            return "take the blanks around {{ … }} away: a template that is one expression keeps its type"
        return (
            f"write {value.strip()}, without quotes"
            if not template
            else "a template that is one expression keeps its type"
        )
    if (
        isinstance(value, str)
        and wanted == "boolean"
        and value.strip().lower() in {"true", "false", "yes", "no", "1", "0"}
    ):
        if expression:
            return f'write "{{{{ {expression} | bool }}}}"'
        return f"write {'true' if value.strip().lower() in {'true', 'yes', '1'} else 'false'}, without quotes"
    if wanted == "string" and isinstance(value, int | float):
        return f'write "{{{{ {expression} | string }}}}"' if expression else f'write "{shown(value)}", with quotes'
    if isinstance(value, float) and wanted == "integer":
        return f"write {round(value)}"
    if wanted == "array" and not isinstance(value, dict):
        return f"write [{shown(template or value)}]"
    return ""


def _as_number(expression: str, word: str) -> str:
    """A template that reckons with text first makes other text of it."""
    if _PLAIN.fullmatch(expression):
        return f'write "{{{{ {expression} | {word} }}}}"'
    return f"cells are text: put ( … | {word}) around each of them, as in (row.steps | {word}) * 2"


_PLAIN: Final = re.compile(r"[\w.]+(\[[^\[\]]*\])?( *\| *[\w]+(\([^()]*\))?)*")
"""A name, its entry, filters: what a further filter may follow."""


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        int(text) if whole else float(text)
    except ValueError:
        return False
    return True


def _right_choice(fault: InputFault, template: str) -> str:
    choices = [choice for choice in fault.limit if choice is not None] if fault.rule != "union" else []
    value = fault.value
    alike = [choice for choice in choices if str(choice) == str(value)]
    if alike:
        expression = _expression(template)
        if expression and isinstance(alike[0], str):
            return f'write "{{{{ {expression} | string }}}}"'
        return f"write {shown(alike[0])}, {'with' if isinstance(alike[0], str) else 'without'} quotes"
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    if numbers and isinstance(value, int | float):
        return f"the nearest is {shown(min(numbers, key=lambda choice: abs(choice - value)))}"
    return nearest(str(value), [printable(choice) for choice in choices if isinstance(choice, str)])
