"""The manifest's `input`, compiled once and rendered for each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from falbatch.core.faults import OMIT, Fault, TemplateError
from falbatch.core.fileinputs import is_file_input, rendered
from falbatch.core.seeds import MARK, is_derived
from falbatch.core.template import Template, is_template
from falbatch.core.yamltext import Path

Faults = list[tuple[Path, Fault]]
"""What went wrong for one item, and where in the manifest the template stands."""


class _Node(Protocol):
    def render(self, context: dict[str, Any], faults: Faults) -> Any: ...


@dataclass(frozen=True, slots=True)
class Leaf:
    """One template and its place."""

    path: Path
    template: Template

    def render(self, context: dict[str, Any], faults: Faults) -> Any:
        """What it gives; None after noting a fault."""
        try:
            return self.template.render(context)
        except TemplateError as error:
            faults.append((self.path, error.fault))
            return None


@dataclass(frozen=True, slots=True)
class _Mapping:
    constants: dict[str, Any]
    """All keys in order; those of `parts` hold None."""
    parts: tuple[tuple[str, _Node], ...]

    def render(self, context: dict[str, Any], faults: Faults) -> dict[str, Any]:
        made = self.constants.copy()
        for key, part in self.parts:
            value = part.render(context, faults)
            if value is OMIT:
                del made[key]
            else:
                made[key] = value
        return made


@dataclass(frozen=True, slots=True)
class _List:
    constants: list[Any]
    parts: tuple[tuple[int, _Node], ...]

    def render(self, context: dict[str, Any], faults: Faults) -> list[Any]:
        made = self.constants.copy()
        for number, part in self.parts:
            made[number] = part.render(context, faults)
        return [value for value in made if value is not OMIT]


@dataclass(frozen=True, slots=True)
class _File:
    """`{file: path}`: what it holds is not known here."""

    path: Path
    written: dict[str, Any]
    template: Template | None
    """Of its path, None for a constant one."""

    def render(self, context: dict[str, Any], faults: Faults) -> Any:
        place = (*self.path, "file")
        try:
            name = self.template.render(context) if self.template else self.written["file"]
            return rendered(name, self.written, place)
        except TemplateError as error:
            faults.append((place, error.fault))
        except ValueError as error:
            faults.append((place, Fault(str(error), "leave it out with {{ … or omit }}")))
        return None


class _Derived:
    """`{derive: true}`: settled with the job's key."""

    def render(self, _context: dict[str, Any], _faults: Faults) -> Any:
        return dict(MARK)


class InputTemplate:
    """Renders inputs. Parts without templates are shared between them: treat inputs as unchangeable."""

    __slots__ = ("_constant", "_node", "_prompt")

    def __init__(self, data: dict[str, Any], path: Path = ("input",)) -> None:
        self._constant = data
        self._node = _compile(data, path)
        prompt = data.get("prompt")
        self._prompt: Path | None = (*path, "prompt") if isinstance(prompt, str) and is_template(prompt) else None

    def render(self, context: dict[str, Any], faults: Faults) -> dict[str, Any]:
        """One item's input; worth nothing when `faults` grew."""
        if self._node is None:
            return self._constant
        made: dict[str, Any] = self._node.render(context, faults)
        if self._prompt:
            self._check_prompt(made.get("prompt", "omitted"), faults)
        return made

    def _check_prompt(self, prompt: Any, faults: Faults) -> None:
        """An empty prompt is paid for like any other, and is hardly ever meant."""
        already = any(path == self._prompt for path, _ in faults)
        if self._prompt and not already and (prompt is None or (isinstance(prompt, str) and not prompt.strip())):
            hint = "leave such rows out: rows: {file: …, where: \"row.prompt != ''\"}; or, where the model needs none,"
            hint += " write {{ … or omit }}"
            faults.append((self._prompt, Fault("the prompt is empty here", hint)))


def _compile(value: Any, path: Path) -> _Node | None:
    """A renderer for `value`, or None when there is nothing to render in it."""
    match value:
        case str() if is_template(value):
            return Leaf(path, Template(value))
        case dict() if len(path) > 1 and is_file_input(value):  # an input as a whole is no file, and no seed
            written = value["file"]
            return _File(path, value, Template(written) if is_template(written) else None)
        case dict() if len(path) > 1 and is_derived(value):
            return _Derived()
        case dict():
            found = tuple((key, node) for key, entry in value.items() if (node := _compile(entry, (*path, key))))
            constants = {**value, **dict.fromkeys(key for key, _ in found)}
            return _Mapping(constants, found) if found else None
        case list():
            nodes = [_compile(entry, (*path, number)) for number, entry in enumerate(value)]
            parts = tuple((number, node) for number, node in enumerate(nodes) if node)
            return _List(list(value), parts) if parts else None
        case _:
            return None
