"""What to write instead of a value that an endpoint will not take. Pure.

What follows "write" can be put into the manifest as it stands, and is taken then; where the manifest has a template,
it is one too, so that no row loses its value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.checking import BOUNDS, Pardon, kinds
from falbatch.core.fileinputs import is_file_input, is_stand_in
from falbatch.core.filters import as_bool
from falbatch.core.problems import nearest, printable, shown
from falbatch.core.rewriting import reckons, rewritten
from falbatch.core.seeds import is_derived
from falbatch.core.template import is_template, only_expression
from falbatch.core.yamlwords import constant, in_quotes, jinja_quoted, key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falbatch.core.checking import InputFault

AROUND: Final = "{# made by a template around it #}"
"""`written` for a place that the manifest has not, since a template around it makes it."""

_DIGITS_MOST: Final = 40
_VALUE_MOST: Final = 160
"""Characters of a value that a remedy repeats: it is repeated whole or not at all."""

_SEE: Final = "see `falbatch schema`"


def correction(fault: InputFault, written: Any) -> str:
    """What to write instead. `written` is what the manifest has at the fault's place: a template, a value, or None."""
    if fault.pardon:
        return _leave_out(fault, written)
    if is_derived(written):
        return _seed(fault)
    template = written if isinstance(written, str) and is_template(written) else ""
    match fault.rule:
        case "unknown":
            return nearest(str(fault.path[-1]), fault.known) or _known(fault.known)
        case "required":
            alike = nearest(str(fault.path[-1]), fault.known).removeprefix("did you mean ").removesuffix("?")
            return f"is it {alike}?" if alike else f"add `{key(str(fault.path[-1]))}:` to it"
        case "type":
            return _right_kind(fault, template, written) or f"write {kinds(fault.limit)}"
        case "enum" | "const" | "union":
            return _right_choice(fault, template, written) or "write one of those"
        case "minimum" | "maximum":
            return _clamped(fault, template) or f"write a number that is {BOUNDS[fault.rule]} {shown(fault.limit)}"
        case "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf":
            return f"write a number that is {BOUNDS[fault.rule]} {shown(fault.limit)}"
        case "maxLength":
            return _write(rewritten(template, f"({{}})[:{fault.limit}]")) or "shorten it"
        case _:
            return _SEE


def _known(names: Sequence[str]) -> str:
    return f"known: {', '.join(sorted(names)[:12])}" if names else ""


def _write(template: str) -> str:
    return f"write {in_quotes(template)}" if template else ""


def _changed(fault: InputFault, template: str, form: str) -> str:
    """`template` with `form` around its value; the words that a union takes beside its kinds stay as they are."""
    words = [choice for choice in fault.choices if isinstance(choice, str)] if fault.rule == "union" else []
    if words and isinstance(fault.value, str):
        listed = ", ".join(map(jinja_quoted, words))
        form = f"{form} if {{}} not in [{listed}] else {{}}" if len(listed) <= _VALUE_MOST else ""
    return _write(rewritten(template, form)) if form else ""


def _leave_out(fault: InputFault, written: Any) -> str:
    if fault.pardon is Pardon.DEFAULT:
        return "that is the default by the same schema: leave it out"
    template = written if isinstance(written, str) else ""
    return _write(rewritten(template, "{} if {} is not none else omit")) or "leave it out"


def _seed(fault: InputFault) -> str:
    """Derived seeds have 31 bits, and are numbers."""
    if fault.rule == "maximum" and isinstance(fault.limit, int | float) and 1 <= fault.limit < 2**31:
        return f'a derived seed goes up to 2147483647: write "{{{{ index % {math.floor(fault.limit) + 1} }}}}"'
    if fault.rule == "type" and "string" in fault.limit:
        return 'a derived seed is a number: write "{{ index | string }}"'
    return 'a derived seed is a number up to 2147483647: write one of your own, such as "{{ index }}"'


def _clamped(fault: InputFault, template: str) -> str:
    is_least, limit = fault.rule == "minimum", fault.limit
    if isinstance(fault.value, int) and isinstance(limit, float):  # maybe only whole numbers are taken
        limit = math.ceil(limit) if is_least else math.floor(limit)
    number = _number_text(limit)
    if template:
        return _write(rewritten(template, f"[{{}}, {number}] | {'max' if is_least else 'min'}")) if number else ""
    return f"write {number}" if number else ""


def _number_text(number: float) -> str:
    """A number as YAML and templates have it; "" for one that nobody writes."""
    if isinstance(number, int):
        return str(number) if number.bit_length() < 3 * _DIGITS_MOST else ""
    return repr(number) if math.isfinite(number) else ""


def _right_kind(fault: InputFault, template: str, written: Any) -> str:
    """The same value as one of the types that are taken, the first that it can be."""
    remedies = (_as_kind(fault, wanted, template, written) for wanted in fault.limit)
    return next(filter(None, remedies), "")


def _as_kind(fault: InputFault, wanted: str, template: str, written: Any) -> str:
    value = fault.value
    if wanted == "array":
        return _as_list(value, template, written)
    if is_stand_in(value):
        return ""
    match wanted:
        case "integer" | "number":
            return _as_number(fault, template, is_whole=wanted == "integer" and "number" not in fault.limit)
        case "boolean":
            return _as_flag(fault, template)
        case "string" if isinstance(value, int | float):
            return _as_text(value, template)
    return ""


def _as_list(value: Any, template: str, written: Any) -> str:
    if is_file_input(written):
        return f"write [{constant(written)}]"
    if is_stand_in(value):
        return "write [{file: …}]"
    if not isinstance(value, str):
        return ""
    if template:
        return f"write [{in_quotes(template)}]" if template != AROUND else ""
    one = constant(value)
    return f"write [{one}]" if len(one) <= _VALUE_MOST else "put it in brackets: a list of one"


def _as_number(fault: InputFault, template: str, *, is_whole: bool) -> str:
    """A text or a broken number as the number that it means."""
    value = fault.value
    number, form = _meant_number(value, is_whole=is_whole)
    text = _number_text(number) if number is not None else ""
    if not text or not isinstance(value, str | float):
        return ""
    if not template:
        return f"write {text}{', without quotes' if isinstance(value, str) else ''}"
    if isinstance(value, str) and reckons(template):
        word = "int" if is_whole else "float"
        return f"cells are text: put ( … | {word}) around each of them, as in (row.steps | {word}) * 2"
    if template == AROUND:
        return ""
    if template.strip() != template:
        return "take the blanks around {{ … }} away: a template that is one expression keeps its type"
    if not only_expression(template):
        return "a template that is one expression keeps its type"
    return _changed(fault, template, form)


def _meant_number(value: Any, *, is_whole: bool) -> tuple[float | None, str]:
    """The number, and what makes it of the value in a template."""
    try:
        if isinstance(value, str) and is_whole:
            return int(value), "{} | int"
    except ValueError:
        pass
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        return None, ""
    if is_whole:
        return round(number), "{} | float | round | int" if isinstance(value, str) else "{} | round | int"
    return number, "{} | float"


def _as_flag(fault: InputFault, template: str) -> str:
    value = fault.value
    try:
        flag = as_bool(value)
    except ValueError:
        return ""
    if template:
        return _changed(fault, template, "{} | bool")
    return f"write {constant(flag)}{', without quotes' if isinstance(value, str) else ''}"


def _as_text(value: Any, template: str) -> str:
    if template:
        return _write(rewritten(template, "{} | tojson" if isinstance(value, bool) else "{} | string"))
    text = constant(value) if isinstance(value, bool) else _number_text(value)
    return f'write "{text}", with quotes' if text else ""


def _right_choice(fault: InputFault, template: str, written: Any) -> str:
    choices = [choice for choice in fault.choices if choice is not None]
    value, word = fault.value, _word(fault.value)
    alike = next((choice for choice in choices if word is not None and _word(choice) == word), None)
    if alike is not None:
        return _same(alike, value, template)
    if fault.rule == "union" and (remedy := _right_kind(fault, template, written)):
        return remedy
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    if numbers and isinstance(value, int | float):
        return f"the nearest is {shown(min(numbers, key=lambda choice: abs(choice - value)))}"
    texts = [printable(choice) for choice in choices if isinstance(choice, str)]
    return nearest(word, texts) if word is not None else ""


def _word(value: Any) -> str | None:
    """A value as one may write it without minding its kind; None for one of several parts."""
    if isinstance(value, str):
        return value
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return constant(int(value) if is_whole else value) if isinstance(value, bool | int | float) else None


def _same(choice: Any, value: Any, template: str) -> str:
    """The choice that a value is already, but for its kind."""
    if isinstance(choice, str) and isinstance(value, bool):
        form = "{} | tojson"
    elif isinstance(choice, str):
        form = "{} | string" if isinstance(value, int) else "{} | round | int | string" if value.is_integer() else ""
        form = form or "{} | string"
    else:
        form = "{} | bool" if isinstance(choice, bool) else "{} | int" if isinstance(choice, int) else "{} | float"
    if template:
        return _write(rewritten(template, form))
    return f"write {constant(choice)}, {'with' if isinstance(choice, str) else 'without'} quotes"
