"""What the checks of many inputs found: each cause once, with its place, its jobs and a remedy. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.correction import AROUND, correction
from falbatch.core.problems import nearest, printable
from falbatch.core.schema import dotted
from falbatch.core.template import is_template
from falbatch.core.validation import EXCEPT
from falbatch.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from falbatch.core.checking import InputCheck, InputFault, Path
    from falbatch.core.manifest import Manifest

ALIKE: Final = 5
"""Causes at one place, by one rule, that are told apart by their values; the others are counted together."""

CAUSES: Final = 200
"""Errors, and as many warnings, that are kept; more are counted."""

FIRST: Final = 3
"""Jobs of a cause that are named."""


@dataclass(slots=True)
class _Cause:
    fault: InputFault
    endpoints: set[str]
    jobs: int = 0
    last: int = -1
    """`seq` of the last job that was counted: a job counts once, however many entries of a list are wrong."""
    first: list[tuple[int, str]] = field(default_factory=list)
    """Place and origin of the first jobs."""

    def count(self, seq: int, origin: str) -> None:
        if seq == self.last:
            return
        self.last = seq
        self.jobs += 1
        if len(self.first) < FIRST:
            self.first.append((seq, origin))


class Findings:
    """Looks at inputs one after the other, and remembers what is wrong with them; a bounded number of causes."""

    def __init__(self, manifest: Manifest, checks: Mapping[str, InputCheck]) -> None:
        """`checks` by endpoint; inputs of other endpoints are not checked."""
        self._manifest = manifest
        self._checks = checks
        self._skipped = manifest.validate.exceptions
        self._causes: dict[Hashable, _Cause] = {}
        self._alike: dict[Hashable, int] = {}
        self._kept = {True: 0, False: 0}
        self._more = {True: 0, False: 0}

    def look(self, endpoint: str, given: Any, seq: int, origin: str) -> None:
        """Check the input of job `seq` (0-based place in the manifest)."""
        check = self._checks.get(endpoint)
        if check is None or check.is_good(given):
            return
        for fault in check.faults(given):
            if not self._is_excepted(fault.path):
                self._note(fault, endpoint, seq, origin)

    def _is_excepted(self, path: Path) -> bool:
        names = tuple(step for step in path if isinstance(step, str))
        return any(names[: len(skipped)] == skipped for skipped in self._skipped)

    def _note(self, fault: InputFault, endpoint: str, seq: int, origin: str) -> None:
        rule = (*fault.kind, fault.asks)  # an endpoint that asks for the same adds to the same cause
        key: Hashable = (rule, fault.cause)
        cause = self._causes.get(key)
        if cause is None and self._alike.get(rule, 0) >= ALIKE:
            key = (rule, "others")
            cause = self._causes.get(key)
        if cause is None:
            if self._kept[fault.is_error] >= CAUSES:
                self._more[fault.is_error] += 1
                return
            self._kept[fault.is_error] += 1
            self._alike[rule] = self._alike.get(rule, 0) + 1
            cause = self._causes[key] = _Cause(fault, set())
        cause.endpoints.add(endpoint)
        cause.count(seq, origin)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What the endpoints will refuse, by place."""
        return self._problems(is_error=True)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What the endpoints will not look at, or most likely take, by place."""
        return self._problems(is_error=False)

    def idle_exceptions(self) -> Iterator[Problem]:
        """The exceptions that are a field neither of a schema nor of the input: words that were mistyped."""
        for number, names in enumerate(self._skipped):
            lacking = [check.lacks(names) for check in self._checks.values()]
            if not lacking or None in lacking or _is_in(self._manifest.input, names):
                continue
            known = dict.fromkeys(name for found in lacking for name in found or ())
            line, column = self._manifest.line_of(("validate", EXCEPT, number))
            what = f'validate.except: no endpoint has a field "{".".join(names)}"'
            yield Problem(self._manifest.source, line, column, printable(what), printable(nearest(names[-1], known)))

    def _problems(self, *, is_error: bool) -> tuple[Problem, ...]:
        found = [self._problem(cause) for cause in self._causes.values() if cause.fault.is_error is is_error]
        found.sort(key=lambda problem: (problem.line, problem.column))
        if more := self._more[is_error]:
            found.append(Problem(self._manifest.source, 0, 0, f"and {more:,} more of other kinds"))
        return tuple(found)

    def _problem(self, cause: _Cause) -> Problem:
        path = ("input", *cause.fault.path)
        line, column = self._manifest.line_of(path)
        whose = f" of {', '.join(sorted(cause.endpoints))}" if len(cause.endpoints) < len(self._checks) else ""
        what = f"{dotted(path)}{whose} {cause.fault.what} [{_jobs(cause)}]"
        hint = correction(cause.fault, self._written(cause.fault.path))
        return Problem(self._manifest.source, line, column, printable(what), printable(hint))

    def _written(self, path: Path) -> Any:
        """What the manifest has at a place of the input: AROUND where a template around the place makes it, None where
        nothing does."""
        value: Any = self._manifest.input
        for step in path:
            is_there = step in value if isinstance(value, dict) else isinstance(value, list) and _reaches(value, step)
            if not is_there:
                return AROUND if isinstance(value, str) else None
            value = value[step]
        return value


def _is_in(value: Any, names: Sequence[str]) -> bool:
    """Whether an input, as it is written, has or may have the field `names`, through lists too."""
    if not names or (isinstance(value, str) and is_template(value)):
        return True
    if isinstance(value, list):
        return any(_is_in(entry, names) for entry in value)
    return isinstance(value, dict) and names[0] in value and _is_in(value[names[0]], names[1:])


def _reaches(entries: list[Any], step: str | int) -> bool:
    return isinstance(step, int) and step < len(entries)


def _jobs(cause: _Cause) -> str:
    """`1,200 jobs: job 3 (people.csv:4, style=oil), job 9 (people.csv:10), …`; jobs are counted from 1."""
    named = "; ".join(f"job {seq + 1:,} ({origin})" for seq, origin in _by_place(cause))
    more = ", …" if cause.jobs > len(cause.first) else ""
    return f"{cause.jobs:,} jobs: {named}{more}" if cause.jobs > 1 else named


def _by_place(cause: _Cause) -> Iterator[tuple[int, str]]:
    yield from sorted(cause.first)
