"""What is known of a batch's endpoints before its jobs are looked at, and the quote that follows from it: schemas for
their defaults, prices, estimates, and what the batch's own jobs were billed so far."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio
import anyio.to_thread

from falbatch.adapters.store import spending
from falbatch.api.offline import account_of, target_kind, user_cache
from falbatch.api.preflight import PATIENCE_S, Facts, ask, kept_facts, look_over
from falbatch.api.pricing import (
    WANTED_S,
    Asked,
    Found,
    PriceBook,
    ask_estimates,
    ask_prices,
    find_prices,
    is_stale,
    tariffs_of,
    trouble_of,
    wants_estimate,
)
from falbatch.core.openapi import input_defaults
from falbatch.core.plan import Action, Again, Plan
from falbatch.core.pricing import Quote
from falbatch.errors import FalbatchError, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Mapping, Sequence
    from pathlib import Path

    from falbatch.adapters.cache import Cache
    from falbatch.adapters.store.jobs import ManifestJobs
    from falbatch.adapters.store.store import Store
    from falbatch.api.connect import Fal, FalPlatform
    from falbatch.api.windows import Windows
    from falbatch.core.limits import BudgetSpec
    from falbatch.core.manifest import Manifest
    from falbatch.core.money import Price
    from falbatch.core.pricing import Estimate

T = TypeVar("T")

Defaults = dict[str, "Mapping[str, Any] | None"]
"""By endpoint: its input's fields with their defaults; None where the schema is not known."""


NO_KEY: Final = "fal names prices only with a key; FAL_KEY or --key-file gives one"


ANOTHERS: Final = "as heard with a key, of which there is none now; accounts may have prices of their own"


@dataclass(frozen=True, slots=True)
class Told:
    """What fal says, or said, of a batch's endpoints."""

    facts: Mapping[str, Facts] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    trouble: str = ""
    """Why prices are missing or old; "" where none is."""

    @property
    def defaults(self) -> Defaults:
        """What each endpoint does by itself."""
        return {
            endpoint: None if facts.document is None else input_defaults(facts.document)
            for endpoint, facts in self.facts.items()
        }


def open_quote(connection: sqlite3.Connection, told: Told) -> Quote:
    """The quote of a batch's next run, before any job is added."""
    bills = spending.sample_bills(connection, tuple(told.prices))
    tariffs = tariffs_of(told.prices, told.defaults, spending.learned(connection), bills)
    return Quote(tariffs, spending.purse(connection, None), told.estimates, told.trouble)


async def estimates_of(
    platform: FalPlatform | None,
    book: PriceBook,
    endpoints: Sequence[str],
    prices: Mapping[str, Price],
    *,
    at: float,
    until: float,
) -> dict[str, Estimate]:
    """fal's estimates where they may be needed: those of the last day, else fal's of now, which is asked `until` a
    moment of the event loop's clock. Without `platform` nobody is asked."""
    wanted = [one for one in endpoints if wants_estimate(prices.get(one))]
    found = book.estimates(wanted)
    stale = [endpoint for endpoint in wanted if is_stale(found.get(endpoint), at)]
    within_s = max(0.0, until - anyio.current_time())
    if platform is None or not stale or not within_s:
        return found
    return found | await ask_estimates(platform, book, stale, at=at, within_s=within_s)


async def together(facts: Awaitable[dict[str, Facts]], money: Awaitable[T]) -> tuple[dict[str, Facts], T]:
    """Both at a time. Raises what `money` raises, at once."""
    found: dict[str, Facts] = {}
    answer: T | None = None
    error: FalbatchError | None = None

    async def look() -> None:
        found.update(await facts)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        try:
            answer = await money
        except FalbatchError as raised:
            error = raised
            tasks.cancel_scope.cancel()
    if error is not None:
        raise error
    return found, cast("T", answer)


class Asker:
    """Finds out about endpoints for a plan, for a program without an event loop."""

    def __init__(
        self,
        budget: BudgetSpec | None,
        *,
        is_sandbox: bool,
        is_offline: bool,
        key_file: Path | None = None,
        validates: bool = True,
    ) -> None:
        self._budget = budget
        self._validates = validates
        self._is_sandbox = is_sandbox
        self._is_offline = is_offline
        self._key_file = key_file

    def ask(self, endpoints: Sequence[str], kept: Mapping[str, Price], target: str | None) -> Told:
        """What is known of `endpoints`. `kept` are the state file's prices, of the fal that it names as `target`. No
        HTTP library is loaded where all was heard within a day."""
        cache = user_cache(os.environ, sandbox=self._is_sandbox)
        here = target_kind(os.environ, sandbox=self._is_sandbox)
        account = account_of(os.environ, self._key_file, sandbox=self._is_sandbox)
        book = PriceBook(self._budget, cache, kept if target == here else {}, account)
        now = time.time()
        facts = {endpoint: kept_facts(cache, endpoint, now) for endpoint in endpoints}
        prices, estimates = book.known(endpoints), book.estimates(endpoints)
        told = Told(facts, prices, estimates, trouble_of(endpoints, prices, "nobody was asked", at=now))
        is_known = (
            not any(one.why for one in facts.values())
            and not told.trouble
            and not any(is_stale(estimates.get(one), now) for one in endpoints if wants_estimate(told.prices.get(one)))
        )
        if is_known or self._is_offline:
            return replace(told, trouble=ANOTHERS) if not told.trouble and book.is_anothers(endpoints) else told
        try:
            return self._talk(endpoints, cache, book)
        except UsageError as error:  # a proxy that cannot be used, say: what fal would tell is advice
            why = str(error)
            facts = {endpoint: replace(one, why=why) if one.why else one for endpoint, one in facts.items()}
            return Told(facts, prices, estimates, trouble_of(endpoints, prices, why, at=now))

    def _talk(self, endpoints: Sequence[str], cache: Cache, book: PriceBook) -> Told:
        from anyio.from_thread import start_blocking_portal

        from falbatch.api.windows import open_windows

        async def talk() -> Told:
            async with open_windows(self._key_file, is_sandbox=self._is_sandbox) as fal:
                return await find_out(fal, cache, book, endpoints, waits_for_statuses=self._validates)

        with start_blocking_portal() as portal:  # also where an event loop runs already
            return portal.call(talk)


async def find_out(
    fal: Windows, cache: Cache, book: PriceBook, endpoints: Sequence[str], *, waits_for_statuses: bool
) -> Told:
    """What fal says of `endpoints`, all of it within `PATIENCE_S`; what does not come by then is what was heard
    before."""
    now = time.time()
    until = anyio.current_time() + PATIENCE_S

    async def find_money() -> tuple[dict[str, Price], dict[str, Estimate], Asked]:
        known, asked = book.known(endpoints), Asked({})
        if fal.platform is not None:
            stale = [endpoint for endpoint in endpoints if is_stale(known.get(endpoint), now)]
            asked = await ask_prices(fal.platform, stale, tries=1, timeout_s=WANTED_S, within_s=PATIENCE_S, at=now)
            book.keep(asked.prices)
        prices = known | asked.prices
        return prices, await estimates_of(fal.platform, book, endpoints, prices, at=now, until=until), asked

    looks = ask(endpoints, cache, fal.catalogue, waits_for_statuses=waits_for_statuses)
    facts, (prices, estimates, asked) = await together(looks, find_money())
    why = NO_KEY if fal.no_key else str(asked.error or "fal named none in US dollars")
    return Told(facts, prices, estimates, trouble_of(endpoints, prices, why, at=now))


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a run finds out before it begins."""

    store: Store
    fal: Fal
    manifest: Manifest
    cache: Cache
    account: str
    """Whose prices fal names: `Credentials.account`."""
    at: float
    """Now, in Unix seconds."""
    validates: bool
    max_cost: int | None
    """The limit on cost, which needs prices, in nano-dollars; None without one."""

    async def look(self, jobs: ManifestJobs, plan: Plan, again: Again) -> tuple[Plan, Told]:
        """`plan` with what is worth knowing about its submits and what they will cost, and what fal says of their
        endpoints. Raises `ManifestError` where one will be refused, `UsageError` where a price is needed and lacks."""
        store, manifest = self.store, self.manifest
        endpoints = jobs.endpoints(store.connection)
        submits = plan.actions[Action.SUBMIT] > 0
        found = self._find_prices(sorted({*endpoints, *store.unsettled_endpoints()}))
        if not submits:
            prices = await found
            return plan, Told({}, prices.prices, {}, prices.trouble)
        until = anyio.current_time() + PATIENCE_S

        async def find_money() -> tuple[Found, dict[str, Estimate]]:
            heard = await found
            book = PriceBook(manifest.budget, self.cache, heard.prices, self.account)
            platform = self.fal.platform
            return heard, await estimates_of(platform, book, endpoints, heard.prices, at=self.at, until=until)

        looks = ask(endpoints, self.cache, self.fal.catalogue, waits_for_statuses=self.validates)
        facts, (heard, estimates) = await together(looks, find_money())
        told = Told(facts, heard.prices, estimates, heard.trouble)
        quote = open_quote(store.connection, told)
        verdict = await anyio.to_thread.run_sync(
            lambda: look_over(store.connection, jobs, again, manifest, facts, validates=self.validates, quote=quote)
        )
        verdict.raise_if_wrong()
        return replace(plan, warnings=verdict.warnings, cost=quote.cost(), max_cost=self.max_cost), told

    async def _find_prices(self, endpoints: Sequence[str]) -> Found:
        return await find_prices(
            self.store,
            self.fal.platform,
            endpoints,
            budget=self.manifest.budget,
            is_needed=self.max_cost is not None,
            at=self.at,
            cache=self.cache,
            account=self.account,
        )
