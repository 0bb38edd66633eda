"""What a unit of each endpoint costs: the user's own price, else what fal said lately, else what fal says now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from falbatch.core.identity import input_of
from falbatch.core.money import Price, Tariff, size_of, to_nano
from falbatch.engine.spending import Spending
from falbatch.errors import UsageError, WireError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from falbatch.adapters.store.store import Store
    from falbatch.api.connect import FalPlatform
    from falbatch.core.limits import BudgetSpec

FRESH_S: Final = 24 * 3600.0
"""A price heard within a day is not asked for again; an older one still serves when fal does not answer."""

TRIES: Final = 3
"""For a run that cannot begin without a price; others ask once."""

PAUSE_S: Final = 1.0

NEEDED_S: Final = 15.0
WANTED_S: Final = 4.0
"""Longest wait for one answer, in seconds; a run that can do without prices is not kept waiting for them."""

AT_ONCE: Final = 50
"""Endpoints in one question (fal-protocol §11)."""


async def find_prices(
    store: Store,
    platform: FalPlatform,
    endpoints: Sequence[str],
    *,
    budget: BudgetSpec | None,
    is_needed: bool,
    at: float,
) -> dict[str, Price]:
    """The price of each of `endpoints`, kept in the state file; without `is_needed` some may be missing.

    Raises `UsageError` when `is_needed` and one cannot be found.
    """
    known = known_prices(store, endpoints, budget)
    stale = [one for one in endpoints if one not in known or at - (known[one].at or at) > FRESH_S]
    heard: dict[str, Price] = {}
    why = ""
    if stale:
        tries, timeout_s = (TRIES, NEEDED_S) if is_needed else (1, WANTED_S)
        heard, why = await _ask(platform, stale, tries=tries, timeout_s=timeout_s, at=at)
    prices = {**known, **heard}
    missing = [endpoint for endpoint in endpoints if endpoint not in prices]
    if missing and is_needed:
        raise UsageError(
            f"a cost limit needs the price of {', '.join(missing[:5])}, and fal did not name it" + (why and f": {why}"),
            advice="Give it in the manifest, in US dollars per billable unit: `budget: {unit_price: 0.025}`, or by"
            " endpoint: `unit_price: {fal-ai/flux/dev: 0.025}`.",
        )
    store.take_prices(heard, prices)
    return prices


def known_prices(store: Store, endpoints: Sequence[str], budget: BudgetSpec | None) -> dict[str, Price]:
    """The prices of `endpoints` that can be had without asking fal: the user's own, else those last heard."""
    prices = {endpoint: price for endpoint, price in store.prices().items() if endpoint in endpoints}
    for endpoint in endpoints:
        own = budget.price_of(endpoint) if budget else None
        if own is not None:
            prices[endpoint] = Price(to_nano(own))
    return prices


def open_spending(store: Store, prices: Mapping[str, Price], limit: int | None) -> Spending:
    """The batch's money at the start of a run: what earlier runs spent, what they left open, what they learned."""
    tariffs = {endpoint: Tariff(price) for endpoint, price in prices.items()}
    if limit is not None:
        for endpoint, price in prices.items():
            for given, units in store.bills(endpoint):
                tariffs[endpoint] = tariffs[endpoint].after(size_of(input_of(given), price.unit), units)

    def expected(endpoint: str, given: bytes) -> int:
        tariff = tariffs.get(endpoint)
        return 0 if tariff is None else tariff.expected(size_of(input_of(given), tariff.price.unit))

    store.reserve_open(expected)
    return Spending(store.purse(limit), tariffs)


async def _ask(
    platform: FalPlatform, endpoints: Sequence[str], *, tries: int, timeout_s: float, at: float
) -> tuple[dict[str, Price], str]:
    """fal's prices, and why some are missing. One unknown endpoint refuses a whole question (fal-protocol §11.3), so
    after a refusal each is asked for alone."""
    heard: dict[str, Price] = {}
    why = ""
    groups = [list(endpoints[start : start + AT_ONCE]) for start in range(0, len(endpoints), AT_ONCE)]
    for trial in range(tries):
        if trial:
            await anyio.sleep(PAUSE_S)
        failed: list[list[str]] = []
        for group in groups:
            try:
                heard |= await platform.prices(group, at=at, timeout_s=timeout_s)
            except WireError as error:
                why = str(error)
                failed += [[one] for one in group]
        groups = failed
        if not groups:
            break
    return heard, why
