"""Will an endpoint take the input of one call? Asked before it costs anything, and before its price is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falbatch.api.preflight import ask
from falbatch.core.checking import InputCheck
from falbatch.core.correction import correction
from falbatch.core.problems import printable
from falbatch.core.schema import dotted
from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falbatch.adapters.cache import Cache
    from falbatch.core.checking import InputFault
    from falbatch.fal.catalogue import CatalogueClient


async def check_call(
    catalogue: CatalogueClient, cache: Cache, endpoint: str, given: Mapping[str, Any], *, is_whole: bool = True
) -> list[str]:
    """What is worth knowing about an input before it is sent to `endpoint`; nothing where its schema is not known.
    Without `is_whole`, what is missing is left out on purpose.

    Raises `UsageError` with everything that the endpoint will refuse.
    """
    document = (await ask([endpoint], cache, catalogue))[endpoint].document
    if document is None:
        return []
    try:
        faults = [one for one in InputCheck(document).faults(given) if is_whole or one.rule != "required"]
    except ValueError:  # a schema that cannot be used
        return []
    if wrong := [fault for fault in faults if fault.is_error]:
        raise UsageError(
            "\n".join(f"{endpoint}: {words}" for words in _words(wrong)),
            advice="Nothing was submitted. Where the schema is behind its model: --no-validate.",
        )
    return [f"{endpoint}: {words}" for words in _words(faults)]


def _words(faults: list[InputFault]) -> Iterator[str]:
    for fault in faults:
        hint = correction(fault, None)
        yield printable(f"{dotted(fault.path)} {fault.what}{f' ({hint})' if hint else ''}")
