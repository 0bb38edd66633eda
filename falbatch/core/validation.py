"""`validate` in a manifest: are inputs checked against the endpoints' schemas, and which fields are not? Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.problems import nearest_or_list, shown

if TYPE_CHECKING:
    from falbatch.core.schema import Checker

EXCEPT: Final = "except"
_INDEX: Final = re.compile(r"\[\d*\]")


@dataclass(frozen=True, slots=True)
class Validation:
    """What of a manifest's inputs is checked."""

    is_on: bool = True
    exceptions: tuple[tuple[str, ...], ...] = ()
    """Fields that are taken as they are, with all in them: `("image_size", "width")`."""


def parse_validation(check: Checker) -> Validation:
    """The manifest's `validate`; problems go to `check`."""
    value = check.data.get("validate", True)
    if isinstance(value, bool):
        return Validation(is_on=value)
    if not isinstance(value, dict):
        hint = "true, false, or {except: [num_inference_steps]}"
        check.wrong(("validate",), f"validate must be true, false or exceptions, not {shown(value)}", hint)
        return Validation()
    for key in value:
        if key != EXCEPT:
            check.wrong_key(
                ("validate", key), f'unknown key "{key}" in validate', nearest_or_list(str(key), frozenset({EXCEPT}))
            )
    return Validation(exceptions=tuple(_exceptions(check, value.get(EXCEPT))))


def _exceptions(check: Checker, value: Any) -> list[tuple[str, ...]]:
    path = ("validate", EXCEPT)
    if value is None:
        return []
    if not isinstance(value, list):
        check.wrong(path, f"validate.except must be a list of fields, not {shown(value)}", "such as [num_images]")
        return []
    found: list[tuple[str, ...]] = []
    for number, entry in enumerate(value):
        steps = tuple(_INDEX.sub("", entry).split(".")) if isinstance(entry, str) else ()
        if steps and all(steps):
            found.append(steps)
        else:
            check.wrong(
                (*path, number), f"a field of the input is needed, not {shown(entry)}", "such as image_size.width"
            )
    return found
