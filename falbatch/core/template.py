"""The language of templates: Jinja, sandboxed, strict about undefined names, with nothing left to chance.

A text that is exactly one `{{ expression }}` keeps the expression's type; anything else gives text. Different
from plain Jinja: a mapping's entries win over its methods (`row.items` is the column); `int` and `float` refuse
what is no number unless a default is given; `slug` makes a slug; `tojson` does not escape for HTML; `random` and
`lipsum` are gone; null, lists and mappings mixed into text are refused ("None portrait" would cost money);
`omit` as a whole value leaves that value out; there are no other files to include.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jinja2
from jinja2 import defaults, filters, meta, nodes, runtime, sandbox
from jinja2.exceptions import SecurityError
from jinja2.utils import missing

from falbatch.core.faults import (
    OMIT,
    Fault,
    TemplateError,
    missing_entry,
    missing_name,
    name_hint,
    not_text,
    odd,
    syntax_hint,
)
from falbatch.core.filters import FILTERS
from falbatch.core.jsonvalue import MAX_TEXT, to_json
from falbatch.core.lookups import quick
from falbatch.core.problems import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAX_LOOP: Final = 10_000
"""Numbers that one `range` in a template gives."""
_MAX_PARTS: Final = 1_000_000
"""Pieces one text may be put together from: ends loops within loops."""
_MAX_BITS: Final = 4096
"""Bits of a reckoned integer: keeps `9 ** 9 ** 9` from filling the memory."""
_WIDE: Final = re.compile(r"\d{7}|\*|\{[^{}]*\{")
"""A format with a width of millions, or one given as an argument."""
_RESULT: Final = "_value"
_REFUSED: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


class _MissingNameError(jinja2.UndefinedError):
    def __init__(self, owner: Any, name: str, message: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner
        self.name = name


class _NotTextError(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class _Missing(jinja2.StrictUndefined):
    """Remembers what was looked for, so that the message can name the nearest right word."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: Any = jinja2.UndefinedError,
    ) -> None:
        blame: Any = functools.partial(_MissingNameError, obj, str(name)) if exc is jinja2.UndefinedError else exc
        super().__init__(hint, obj, name, blame)


class _Environment(sandbox.ImmutableSandboxedEnvironment):
    """The sandbox. Never changed once built, so one serves everybody."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: runtime.Context, operator: str, left: Any, right: Any) -> Any:
        _check_size(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: runtime.Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        # methods of text are the only ones that pad or repeat
        method = getattr(obj, "__wrapped__", obj)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            if method.__name__ in ("format", "format_map"):
                _check_format(owner)
            else:
                _check_arguments(args)
        return super().call(context, obj, *args, **kwargs)


def _check_size(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        too_big = operator != "%" and bits > _MAX_BITS
    elif operator == "*":
        items = max((len(side) for side in (left, right) if hasattr(side, "__len__")), default=0)
        times = max((side for side in (left, right) if isinstance(side, int)), default=0)
        too_big = items * times > MAX_TEXT
    else:
        too_big = operator == "%" and isinstance(left, str) and bool(_WIDE.search(left))
    if too_big:
        raise SecurityError(f"{operator} would give too large a value")


def _check_format(text: str) -> None:
    if _WIDE.search(text):
        raise SecurityError("this format is too wide")


def _check_arguments(arguments: tuple[Any, ...]) -> None:
    if any(isinstance(argument, int) and abs(argument) > MAX_TEXT for argument in arguments):
        raise SecurityError("this number is too large here")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pads or fills, refusing to do so by millions."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_arguments((*args[1:], *kwargs.values()))
        return function(*args, **kwargs)

    return checked


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > _MAX_LOOP:
        raise SecurityError(f"a range in a template may have {_MAX_LOOP:,} numbers")
    return numbers


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    _check_format(str(value))
    return filters.do_format(value, *args, **kwargs)


def _as_text(value: Any) -> Any:
    """Refuse what nobody means to see inside a text; Jinja calls this for each `{{ … }}` of one."""
    if isinstance(value, (str, int, float, jinja2.Undefined)):  # undefined speaks for itself, as text
        return value
    raise _NotTextError(value)


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(undefined=_Missing, keep_trailing_newline=True, finalize=_as_text)
    padding = {name: _bounded(environment.filters[name]) for name in ("batch", "center", "indent", "slice")}
    environment.filters |= padding
    environment.filters |= {"format": _format, **FILTERS}
    del environment.filters["random"]  # the same manifest must give the same jobs
    environment.globals = {"range": _range, "dict": dict, "namespace": defaults.DEFAULT_NAMESPACE["namespace"]}
    return environment


def global_names() -> dict[str, Any]:
    """What every template sees besides the item's own names; part of each context given to `render`."""
    return {**_environment().globals, "omit": OMIT}


def is_template(text: str) -> bool:
    """Whether `text` is more than a constant."""
    return "{{" in text or "{%" in text or "{#" in text


class Template:
    """One text of the manifest, compiled."""

    __slots__ = ("_context", "_is_expression", "_parts", "_quick", "_template", "source")

    def __init__(self, source: str) -> None:
        """Compile `source`, which `check` has found good."""
        self.source = source
        expressions = _expressions(source)
        self._is_expression = len(expressions) == 1 and expressions[0].whole
        self._template = _compiled(expressions[0].text) if self._is_expression else _environment().from_string(source)
        self._parts: list[tuple[str, jinja2.Template]] | None = None
        self._quick = quick(_environment().parse(source), whole=self._is_expression)
        self._context = self._template.new_context()

    def names(self) -> frozenset[str]:
        """The names it takes from its context."""
        return frozenset(meta.find_undeclared_variables(_environment().parse(self.source)))

    def render(self, context: dict[str, Any]) -> Any:
        """JSON (or OMIT) for one item. `context` holds `global_names()`; it is not changed.

        Raises TemplateError, whatever went wrong inside.
        """
        if self._quick is not None:
            with suppress(LookupError, TypeError, ValueError):  # Jinja says what is wrong
                value = self._quick(context)
                return value if value is OMIT else to_json(value)
        try:
            if self._is_expression:
                value = _value(self._template, self._fresh(context))
                return value if value is OMIT else to_json(value)
            return to_json(_text(self._template, self._fresh(context)))
        except Exception as error:
            self._context = self._template.new_context()
            fault = self._fault(error, context)._replace(line=_line(error, self._template))
            raise TemplateError(fault) from error

    def _fresh(self, context: dict[str, Any]) -> runtime.Context:
        """Jinja's own wrapping of `context`. Making one costs as much as rendering, so the last one is used again."""
        made = self._context
        made.parent = context
        made.vars.clear()
        made.exported_vars.clear()
        return made

    def _fault(self, error: Exception, context: dict[str, Any]) -> Fault:
        match error:
            case _MissingNameError():
                if error.owner is missing:
                    return missing_name(error.name)
                return missing_entry(error.owner, error.name, self.source)
            case _NotTextError():
                return not_text(error.value, self._culprit(context))
            case SecurityError():
                return Fault(f"the template does what it may not: {error}")
            case MemoryError() | RecursionError():
                return Fault("the template needs too much memory")
            case _:
                return odd(error)

    def _culprit(self, context: dict[str, Any]) -> str:
        """The expression of this text that is no text, or "" if it stands inside a loop or condition."""
        if self._parts is None:
            self._parts = [(part.text.strip(), _compiled(part.text)) for part in _expressions(self.source)]
        for text, template in self._parts:
            try:
                _as_text(_value(template, template.new_context(context, shared=True)))
            except _NotTextError:
                return text
            except Exception:  # noqa: BLE001, S112  (it needs a name that a loop sets: not this one)
                continue
        return ""


def _line(error: Exception, template: jinja2.Template) -> int:
    """The line (1-based) of the template's text that was being rendered when `error` was raised."""
    line, step = 1, error.__traceback__
    while step:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(step.tb_lineno)
        step = step.tb_next
    return line


def _compiled(expression: str) -> jinja2.Template:
    return _environment().from_string("{% set " + _RESULT + " = " + expression + " %}")


def _value(template: jinja2.Template, made: runtime.Context) -> Any:
    for _ in template.root_render_func(made):
        pass
    value = made.vars[_RESULT]
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, saying what is missing
    return value


def _text(template: jinja2.Template, made: runtime.Context) -> str:
    parts: list[str] = []
    size = 0
    for part in template.root_render_func(made):
        size += len(part)
        parts.append(part)
        if size > MAX_TEXT or len(parts) > _MAX_PARTS:
            raise ValueError(f"the text grows beyond {MAX_TEXT:,} characters")
    return "".join(parts)


class _Expression(NamedTuple):
    text: str
    whole: bool


def only_expression(source: str) -> list[tuple[str, str]]:
    """The tokens, kind and text, of a template that is one expression, blanks among them; [] for any other text."""
    try:
        is_one = is_template(source) and [part.whole for part in _expressions(source)] == [True]
        tokens = [(kind, text) for _, kind, text in _environment().lex(source)] if is_one else []
    except jinja2.TemplateSyntaxError:
        return []
    return [token for token in tokens if token[0] not in {"variable_begin", "variable_end"}]


def _expressions(source: str) -> list[_Expression]:
    """The `{{ … }}` of `source`; `whole` when there is nothing else."""
    found: list[str] = []
    outside = inside = False
    for _, kind, token in _environment().lex(source):
        if kind == "variable_begin":
            found.append("")
            inside = True
        elif kind == "variable_end":
            inside = False
        elif inside:
            found[-1] += token
        else:
            outside = True
    return [_Expression(text, not outside and len(found) == 1) for text in found]


def check(source: str, known: frozenset[str]) -> list[Fault]:
    """Everything wrong with a template that can be known without an item; `known` are the names items have."""
    try:
        tree = _environment().parse(source)
        faults = [*_refused(tree), *_unknown_words(tree), *_unknown_names(tree, known)]
        if not faults:
            Template(source)
    except jinja2.TemplateSyntaxError as error:
        return [
            Fault(f"the template is not valid: {error.message}", syntax_hint(error.message or ""), line=error.lineno)
        ]
    except (RecursionError, MemoryError, SyntaxError, ValueError):  # nested, or numbers written, without end
        return [Fault("the template is too deeply nested, or holds a number of too many digits")]
    return faults


def check_condition(text: str, known: frozenset[str]) -> list[Fault]:
    """Like `check`, for a `where`: one expression, with or without `{{ }}`."""
    source = condition(text)
    faults = check(source, known)
    if not faults and not any(part.whole for part in _expressions(source)):
        faults.append(Fault("where must be one expression", "for example: row.age | int > 30"))
    return faults


def condition(text: str) -> str:
    """A `where` as a one-expression template."""
    stripped = text.strip()
    return stripped if is_template(stripped) else "{{ " + stripped + " }}"


def _refused(tree: nodes.Template) -> Iterator[Fault]:
    for node in tree.find_all(_REFUSED):
        word = type(node).__name__.lower()
        yield Fault(f"{{% {word} %}} has no meaning here", "a template stands alone", node.lineno)


def _unknown_words(tree: nodes.Template) -> Iterator[Fault]:
    environment = _environment()
    for found in tree.find_all((nodes.Filter, nodes.Test)):
        kind = "filter" if isinstance(found, nodes.Filter) else "test"
        known = environment.filters if kind == "filter" else environment.tests
        name = found.name
        if name not in known:
            yield Fault(f'there is no {kind} "{name}"', nearest(name, known), found.lineno)
            # Jinja stops at an unknown word; with a known one in its place, unknown names are found as well
            found.name = "string"


def _unknown_names(tree: nodes.Template, known: frozenset[str]) -> Iterator[Fault]:
    undeclared = meta.find_undeclared_variables(tree) - known - set(global_names())
    for name in sorted(undeclared):
        lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name]
        yield Fault(f"{name} does not exist", name_hint(name, known), min(lines, default=1))
