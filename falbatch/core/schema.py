"""Checking one section of a manifest against its model, and saying what is wrong in plain words.

A section is a frozen pydantic model. Its fields carry `Expected` in their annotation: the words that finish
"limits.downloads must be …".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from falbatch.core.problems import ProblemLog, nearest_or_list, shown
from falbatch.errors import Problem

if TYPE_CHECKING:
    import re
    from collections.abc import Hashable, Mapping

    from falbatch.core.yamltext import Marks, Path

NOT_YET = "is not supported by this version yet"


def whole(pattern: re.Pattern[str]) -> str:
    """For the manifest's JSON Schema, whose patterns may match anywhere: `pattern` for all of a text."""
    return f"^(?:{pattern.pattern})$"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a field takes, in words that follow "must be"."""

    words: str


class Section(BaseModel):
    """Base of the models: strict types, no unknown keys, unchangeable once made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)


class Checker:
    """A manifest being checked: its values, where they stand, and the problems so far."""

    def __init__(self, source: str, data: dict[str, Any], marks: Marks) -> None:
        self.source = source
        self.data = data
        self.marks = marks
        self.log = ProblemLog()
        self.wrong_in: set[str] = set()
        """The top-level keys with problems; "" for the document."""

    def add(self, path: Path, problem: Problem, *, cause: Hashable = None) -> None:
        """Note `problem` with what is at `path`."""
        self.wrong_in.add(str(path[0]) if path else "")
        self.log.add(problem, cause=cause)

    def wrong(self, path: Path, what: str, hint: str = "", *, cause: Hashable = None) -> None:
        """Note a problem with the value at `path`."""
        self.add(path, Problem(self.source, *self.marks.value(path), what, hint), cause=cause)

    def wrong_key(self, path: Path, what: str, hint: str = "") -> None:
        """Note a problem with the key (or list entry) at `path`."""
        self.add(path, Problem(self.source, *self.marks.key(path), what, hint))

    def unknown_key(self, path: Path, known: Mapping[str, Any] | frozenset[str]) -> None:
        """Note that the key at `path` means nothing here."""
        where = f" in {dotted(path[:-1])}" if len(path) > 1 else ""
        self.wrong_key(path, f'unknown key "{path[-1]}"{where}', nearest_or_list(str(path[-1]), known))

    def later_key(self, path: Path, instead: str) -> None:
        """Note that the key at `path` belongs to a capability that this version does not have."""
        self.wrong_key(path, f"{dotted(path)} {NOT_YET}", instead)

    def mapping(self, path: Path, value: Any, what: str) -> dict[str, Any] | None:
        """`value` if it is a mapping; otherwise None, with a problem saying it must be `what`."""
        if isinstance(value, dict):
            return value
        self.wrong(path, f"{dotted(path)} must be {what}, not {shown(value)}")
        return None

    def section(self, name: str, model: type[AnySection]) -> AnySection:
        """The section `name` as its model; the defaults when it is missing or wrong."""
        value = self.data.get(name)
        if value is None:  # `limits:` with everything below it commented out
            return model()
        path: Path = (name,)
        if self.mapping(path, value, "a mapping of settings") is None:
            return model()
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._section_problem(path, model, detail)
            return model()

    def _section_problem(self, path: Path, model: type[Section], detail: Any) -> None:
        inner = tuple(detail["loc"])
        if not inner:  # a check over the whole section: its message is ours already
            self.wrong_key(path, str(detail["ctx"]["error"]))
            return
        key = str(inner[0])
        if detail["type"] == "extra_forbidden":
            self.unknown_key((*path, key), model.model_fields)
            return
        value = self.data[str(path[0])][key]
        what = f"{dotted((*path, key))} must be {expected(model, key)}, not {shown(value)}"
        if detail["type"] == "value_error":
            what = f"{dotted((*path, key))}: {detail['ctx']['error']}"
        self.wrong((*path, key), what, cause=(path, key, what))


def expected(model: type[Section], key: str) -> str:
    """The words of the field's `Expected`."""
    metadata = model.model_fields[key].metadata
    return next((entry.words for entry in metadata if isinstance(entry, Expected)), "something else")


def dotted(path: Path) -> str:
    """`("limits", "downloads")` → `limits.downloads`; list entries as `matrix.include[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
