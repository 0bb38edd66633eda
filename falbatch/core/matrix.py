"""Which combinations a matrix and a zip make. `matrix` means what it means to GitHub Actions:

1. Every combination of the axes' values, the first axis changing slowest.
2. `exclude` takes combinations away: an entry removes each one that has all of the entry's values.
3. `include` entries come in order. One extends every combination of step 2 whose axis values it does not
   change (it may change what earlier entries added); one that extends none becomes a combination of its own,
   at the end.

Values are compared as YAML means them: 1 equals 1.0, nothing else equals something of another type.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.problems import nearest_or_list, shown
from falbatch.core.schema import Checker, dotted

if TYPE_CHECKING:
    from falbatch.core.yamltext import Path

Combination = Mapping[str, Any]
"""Name → value."""

MAX_VALUES: Final = 100_000_000
"""Values of one range: more jobs than any batch has, and a slip of the hand (10**12) is still caught."""

_NOTHING: Final[Combination] = {}


@dataclass(frozen=True, slots=True)
class Matrix:
    """The axes and what exclude and include do to their combinations."""

    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Axis → its values; ranges stay lazy."""
    exclude: tuple[Combination, ...] = ()
    """Parts of combinations to leave out; only names of axes."""
    include: tuple[Combination, ...] = ()
    """Additions; axes and new names."""

    @property
    def names(self) -> frozenset[str]:
        """Every name that some combination has."""
        return frozenset(self.axes).union(*self.include)

    def size(self) -> int:
        """An upper bound on the number of combinations."""
        return self._product_size() + len(self.include) or 1

    def combinations(self) -> Iterator[Combination]:
        """The combinations, lazily, in order; a single empty one when the matrix is empty."""
        if not self.axes and not self.include:
            yield _NOTHING
            return
        extending = [entry for entry in self.include if self._extends(entry)]
        matchers = [(_part(entry, self.axes), entry) for entry in extending]
        for original in self._originals():
            frozen = {name: freeze(value) for name, value in original.items()} if matchers else {}
            yield _extended(original, frozen, matchers)
        for entry in self.include:
            if not any(entry is other for other in extending):
                yield entry

    def _product_size(self) -> int:
        return math.prod(len(values) for values in self.axes.values()) if self.axes else 0

    def _originals(self, part: Mapping[str, Hashable] = _NOTHING) -> Iterator[dict[str, Any]]:
        """What steps 1 and 2 leave, of the combinations that have the values of `part`."""
        if not self.axes:
            return
        excluded = [_part(entry, self.axes) for entry in self.exclude]
        choices = [
            [value for value in values if freeze(value) == part[name]] if name in part else values
            for name, values in self.axes.items()
        ]
        for values in _product(choices):
            combination = dict(zip(self.axes, values, strict=True))
            if not any(_has(combination, entry) for entry in excluded):
                yield combination

    def _extends(self, entry: Combination) -> bool:
        return next(self._originals(_part(entry, self.axes)), None) is not None


def _product(choices: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Like itertools.product, which would write out every range first."""
    if all(len(values) <= 10_000 for values in choices):
        return itertools.product(*choices)
    return _long_product(choices)


def _long_product(choices: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    if not choices:
        yield ()
        return
    for value in choices[0]:
        for rest in _long_product(choices[1:]):
            yield (value, *rest)


def _part(entry: Combination, axes: Mapping[str, Any]) -> dict[str, Hashable]:
    return {name: freeze(value) for name, value in entry.items() if name in axes}


def _has(combination: Combination, part: Mapping[str, Hashable]) -> bool:
    return all(freeze(combination[name]) == value for name, value in part.items())


def _extended(
    original: dict[str, Any],
    frozen: Mapping[str, Hashable],
    matchers: list[tuple[dict[str, Hashable], Combination]],
) -> Combination:
    combination = original
    for part, entry in matchers:
        if all(frozen[name] == value for name, value in part.items()):
            # the original values stay, so that 1 is not replaced by an equal 1.0
            combination = {**combination, **entry, **original}
    return combination


def freeze(value: Any) -> Hashable:
    """A hashable stand-in that equals another's exactly when the values are the same to YAML."""
    match value:
        case bool():
            return ("bool", value)
        case dict():
            return frozenset((key, freeze(entry)) for key, entry in value.items())
        case list():
            return tuple(freeze(entry) for entry in value)
        case _:
            return value  # type: ignore[no-any-return]  # YAML scalars are hashable, whatever their type


def zipped(lists: Mapping[str, Sequence[Any]]) -> Iterator[Combination]:
    """The combinations of linked lists, lazily; a single empty one without any list."""
    if not lists:
        yield _NOTHING
        return
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))


def parse_matrix(check: Checker) -> Matrix:
    """The manifest's `matrix`, noting what is wrong with it."""
    path: Path = ("matrix",)
    data = check.data.get("matrix")
    if data is None:
        return Matrix()
    data = check.mapping(path, data, "a mapping of axes to lists")
    if data is None:
        return Matrix()
    axes = {
        name: values
        for name, value in data.items()
        if name not in ("include", "exclude") and (values := parse_values(check, (*path, name), value))
    }
    exclude = _entries(check, (*path, "exclude"), data.get("exclude"))
    include = _entries(check, (*path, "include"), data.get("include"))
    for number, entry in enumerate(exclude):
        for name in entry:
            if name not in data or name in ("include", "exclude"):
                what = f'matrix.exclude names "{name}", which is not an axis'
                check.wrong_key((*path, "exclude", number, name), what, nearest_or_list(name, axes))
    return Matrix(axes, exclude, include)


def parse_zip(check: Checker) -> dict[str, Sequence[Any]]:
    """The manifest's `zip`, noting what is wrong with it."""
    data = check.data.get("zip")
    if data is None:
        return {}
    data = check.mapping(("zip",), data, "a mapping of names to lists of one length")
    lists = {
        name: values for name, value in (data or {}).items() if (values := parse_values(check, ("zip", name), value))
    }
    first = next(iter(lists), "")
    for name, values in lists.items():
        if len(values) != len(lists[first]):
            what = f"zip lists must be equally long: {first} has {len(lists[first])}, {name} has {len(values)}"
            check.wrong_key(("zip", name), what)
            return {}
    return lists


def parse_values(check: Checker, path: Path, value: Any) -> Sequence[Any]:
    """A list, or the range that `{range: [start, stop, step]}` means; empty after noting a problem."""
    if isinstance(value, dict) and set(value) == {"range"}:
        return _range(check, (*path, "range"), value["range"])
    if not isinstance(value, list):
        hint = "for numbers in a row write {range: [0, 10]}" if isinstance(value, dict) else "write [ … ]"
        check.wrong(path, f"{dotted(path)} must be a list, not {shown(value)}", hint)
        return ()
    if not value:
        check.wrong(path, f"{dotted(path)} has no values, so nothing would run", "remove it, or give it values")
    return value


def _range(check: Checker, path: Path, value: Any) -> Sequence[int]:
    where = dotted(path)
    form = "write [start, stop] or [start, stop, step]; stop itself is left out"
    numbers = value if isinstance(value, list) else []
    if len(numbers) not in (2, 3) or any(type(number) is not int for number in numbers):
        check.wrong(path, f"{where} must be two or three whole numbers", form)
        return ()
    if len(numbers) == 3 and numbers[2] == 0:
        check.wrong(path, f"{where} has a step of 0", form)
        return ()
    values = range(*numbers)
    # len() refuses ranges beyond 2**63, so the count is reckoned
    count = max(0, -((values.start - values.stop) // values.step))
    if count == 0:
        check.wrong(path, f"{where} is empty: {shown(numbers[0])} already reaches {shown(numbers[1])}", form)
        return ()
    if count > MAX_VALUES:
        check.wrong(path, f"{where} has more than {MAX_VALUES:,} values")
        return ()
    return values


def _entries(check: Checker, path: Path, value: Any) -> tuple[Combination, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        check.wrong(path, f"{dotted(path)} must be a list of mappings, not {shown(value)}")
        return ()
    good = []
    for number, entry in enumerate(value):
        if isinstance(entry, dict) and entry:
            good.append(entry)
        else:
            check.wrong((*path, number), f"{dotted((*path, number))} must be a mapping with at least one name")
    return tuple(good)
