"""What endpoints cost: the window behind `falbatch price`. One question, no state but the user's cache."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from falbatch.api.offline import account_of, check_endpoint, user_cache
from falbatch.api.one_call import check_call
from falbatch.api.pricing import NEEDED_S, Asked, PriceBook, ask_estimates, ask_prices, tariffs_of
from falbatch.api.windows import Windows, as_told, open_windows
from falbatch.core.openapi import input_defaults
from falbatch.core.pricing import Quote
from falbatch.errors import FalbatchError, UsageError, WireError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from falbatch.core.money import Price
    from falbatch.core.pricing import EndpointCost, Estimate


@dataclass(frozen=True, slots=True)
class EndpointPrice:
    """What is known of one endpoint's price."""

    endpoint: str
    price: Price
    """Of a unit."""
    estimate: Estimate | None
    """What a call costs on average, as fal says; None where it does not."""
    call: EndpointCost | None
    """What the call that was asked about would cost; None when none was."""


@dataclass(frozen=True, slots=True)
class PriceList:
    """The answer to one question."""

    endpoints: tuple[EndpointPrice, ...]
    trouble: str = ""
    """Why some of it was heard earlier; "" when all is fal's answer of now."""
    warnings: tuple[str, ...] = ()
    """What is worth knowing about the call that was asked about."""


async def prices(
    endpoints: Sequence[str],
    given: Mapping[str, Any] | None = None,
    *,
    key_file: Path | None = None,
    is_sandbox: bool = False,
    validates: bool = True,
) -> PriceList:
    """What `endpoints` cost, and what a call with the input `given` would. What fal said before serves when it cannot
    be asked. Raises `FalbatchError`; with `validates` for a call that an endpoint will refuse."""
    for endpoint in endpoints:
        if wrong := check_endpoint(endpoint):
            raise UsageError(wrong)
    cache = user_cache(os.environ, sandbox=is_sandbox)
    book = PriceBook(None, cache, {}, account_of(os.environ, key_file, sandbox=is_sandbox))
    known = book.known(endpoints)
    async with open_windows(key_file, is_sandbox=is_sandbox) as fal:
        asked = Asked({})
        if fal.platform is not None:
            asked = await ask_prices(fal.platform, endpoints, tries=1, timeout_s=NEEDED_S, at=time.time())
            book.keep(asked.prices)
        found = {**known, **asked.prices}
        if missing := [endpoint for endpoint in endpoints if endpoint not in found]:
            raise fal.no_key or await _no_price(fal, missing, asked)
        warnings = []
        if given is not None and validates:
            for endpoint in endpoints:
                warnings += await check_call(fal.catalogue, cache, endpoint, given, is_whole=False)
        why = fal.no_key or asked.error
        trouble = "" if why is None else f"{why}: this is what fal said before"
        return PriceList(
            tuple([await _priced(fal, book, found[one], one, given) for one in endpoints]), trouble, tuple(warnings)
        )


async def _no_price(fal: Windows, missing: Sequence[str], asked: Asked) -> FalbatchError:
    """Why there is no answer."""
    if asked.unknown:
        alike = await fal.catalogue.near(asked.unknown[0])
        what = f"fal has no endpoint {', '.join(asked.unknown)}"
        hint = f"Did you mean {' or '.join(alike)}? " if alike else ""
        return UsageError(what, advice=f"{hint}`falbatch models WORDS` searches.")
    if asked.error is not None:
        return as_told(asked.error)
    return UsageError(f"fal names no price in US dollars for {', '.join(missing)}")


async def _priced(
    fal: Windows, book: PriceBook, price: Price, endpoint: str, given: Mapping[str, Any] | None
) -> EndpointPrice:
    estimates = book.estimates([endpoint])
    if fal.platform is not None:
        estimates |= await ask_estimates(fal.platform, book, [endpoint], at=time.time())
    if given is None:
        return EndpointPrice(endpoint, price, estimates.get(endpoint), None)
    defaults = None
    with contextlib.suppress(WireError, UsageError):  # the input tells what it tells
        defaults = input_defaults(await fal.catalogue.schema(endpoint))
    quote = Quote(tariffs_of({endpoint: price}, {endpoint: defaults}, {}), estimates=estimates)
    quote.add(endpoint, given)
    return EndpointPrice(endpoint, price, estimates.get(endpoint), *quote.cost().endpoints)
