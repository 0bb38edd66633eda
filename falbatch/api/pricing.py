"""What a unit of each endpoint costs: the user's own price, else what fal said lately, else what fal says now. And what
fal's own average call costs, where the unit does not tell."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.adapters.cache import FRESH_S, Cache
from falbatch.api.preflight import PATIENCE_S
from falbatch.core.identity import input_of
from falbatch.core.money import Price, Tariff, to_nano
from falbatch.core.pricing import Estimate
from falbatch.core.units import Sure, size_of
from falbatch.engine.spending import Spending
from falbatch.errors import HttpError, TransportError, UsageError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from falbatch.adapters.store.store import Store
    from falbatch.api.connect import FalPlatform
    from falbatch.core.limits import BudgetSpec
    from falbatch.core.money import Learned

TRIES: Final = 3
"""For a run that cannot begin without a price; others ask once."""

PAUSE_S: Final = 1.0

NEEDED_S: Final = 15.0
WANTED_S: Final = 4.0
"""Longest wait for one answer, in seconds; a run that can do without prices is not kept waiting for them."""

AT_ONCE: Final = 50
"""Endpoints in one question (fal-protocol §11)."""

SHOWN: Final = 3
"""Endpoints without a price that are named."""

QUESTIONS_AT_ONCE: Final = 8
"""Questions under way together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What fal said, and what it did not."""

    prices: dict[str, Price]
    unknown: tuple[str, ...] = ()
    """Endpoints that fal does not have."""
    error: WireError | None = None
    """Why others are missing; None where none is."""


class PriceBook:
    """Prices as they were heard, from several places; the latest wins, and the user's own above all."""

    def __init__(self, budget: BudgetSpec | None, cache: Cache, kept: Mapping[str, Price], account: str) -> None:
        """`kept` are the state file's; `cache` is the user's, of this fal. fal's prices may be an account's own
        (fal-protocol §11.3): an `account` has only what was heard with its key, and without one ("") what was heard
        last with any."""
        self._budget = budget
        self._cache = cache
        self._kept = kept
        self._account = account

    def _names(self, endpoint: str) -> set[str]:
        """Under which something is kept in the cache: for whoever has no key, and for those who have this one."""
        return {endpoint, self._name(endpoint)}

    def _name(self, endpoint: str) -> str:
        return f"{endpoint} {self._account}".rstrip()

    def is_anothers(self, endpoints: Iterable[str]) -> bool:
        """True without a key, where prices in the cache serve that were heard with one."""
        others = (one for one in endpoints if self._budget is None or self._budget.price_of(one) is None)
        return not self._account and any(
            (heard := self._heard(one)) is not None and heard is not self._kept.get(one) for one in others
        )

    def known(self, endpoints: Iterable[str]) -> dict[str, Price]:
        """The prices of `endpoints` that can be had without asking fal."""
        found: dict[str, Price] = {}
        for endpoint in endpoints:
            heard = self._heard(endpoint)
            own = self._budget.price_of(endpoint) if self._budget else None
            if own is not None:  # by the unit that fal bills, where it is known
                found[endpoint] = Price(to_nano(own), heard.unit if heard else "")
            elif heard is not None:
                found[endpoint] = heard
        return found

    def keep(self, heard: Mapping[str, Price]) -> None:
        """Remember what fal said for other batches and for plans."""
        for endpoint, price in heard.items():
            if price.at is not None:
                value = {"nano_per_unit": price.nano_per_unit, "unit": price.unit}
                for name in self._names(endpoint):
                    self._cache.put("price", name, value, at=price.at)

    def estimates(self, endpoints: Iterable[str]) -> dict[str, Estimate]:
        """fal's estimates as they were last heard, without amount where fal has none."""
        found = {}
        for endpoint in endpoints:
            if (cached := self._cache.get("estimate", self._name(endpoint))) is not None:
                found[endpoint] = Estimate(_whole(cached.value, "nano_per_call"), cached.at)
        return found

    def keep_estimate(self, endpoint: str, estimate: Estimate) -> None:
        """Remember it."""
        if estimate.at is not None:
            for name in self._names(endpoint):
                self._cache.put("estimate", name, {"nano_per_call": estimate.nano_per_call}, at=estimate.at)

    def _heard(self, endpoint: str) -> Price | None:
        kept = self._kept.get(endpoint)
        cached = self._cache.get("price", self._name(endpoint))
        nano = None if cached is None else _whole(cached.value, "nano_per_unit")
        if cached is None or nano is None or (kept is not None and (kept.at or 0.0) >= cached.at):
            return kept
        unit = cached.value.get("unit")
        return Price(nano, unit if isinstance(unit, str) else "", cached.at)


def _whole(value: Any, name: str) -> int | None:
    """A number in what was kept on disk, where anything may stand."""
    number = value.get(name) if isinstance(value, dict) else None
    return number if type(number) is int and 0 <= number < 2**63 else None


def is_stale(heard: Price | Estimate | None, at: float) -> bool:
    """True for what fal did not say, or too long ago. The user's own price has no age."""
    return heard is None or (heard.at is not None and not 0 <= at - heard.at <= FRESH_S)


def trouble_of(endpoints: Sequence[str], prices: Mapping[str, Price], why: str, *, at: float) -> str:
    """What is wrong with the `prices` of `endpoints`, because of `why`; "" where nothing is."""
    missing = [endpoint for endpoint in endpoints if endpoint not in prices]
    if missing:
        more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
        return f"none for {', '.join(missing[:SHOWN])}{more}: {why}; budget.unit_price can name one"
    return f"as heard before: {why}" if any(is_stale(prices[one], at) for one in endpoints) else ""


@dataclass(frozen=True, slots=True)
class Found:
    """Prices for a run."""

    prices: dict[str, Price]
    trouble: str
    """What is wrong with them; "" where nothing is."""


async def find_prices(
    store: Store,
    platform: FalPlatform,
    endpoints: Sequence[str],
    *,
    budget: BudgetSpec | None,
    is_needed: bool,
    at: float,
    cache: Cache,
    account: str,
) -> Found:
    """The price of each of `endpoints`, kept in the state file; without `is_needed` some may be missing.

    Raises `UsageError` when `is_needed` and one cannot be found.
    """
    book = PriceBook(budget, cache, store.prices(), account)
    known = book.known(endpoints)
    tries, timeout_s = (TRIES, NEEDED_S) if is_needed else (1, WANTED_S)
    stale = [endpoint for endpoint in endpoints if is_stale(known.get(endpoint), at)]
    within_s = inf if is_needed else PATIENCE_S
    asked = await ask_prices(platform, stale, tries=tries, timeout_s=timeout_s, within_s=within_s, at=at)
    book.keep(asked.prices)
    prices = {**known, **asked.prices}
    missing = [endpoint for endpoint in endpoints if endpoint not in prices]
    if missing and is_needed:
        raise UsageError(
            f"a cost limit needs the price of {', '.join(missing[:5])}, and fal did not name it"
            + (f": {asked.error}" if asked.error else ""),
            advice="Give it in the manifest, in US dollars per billable unit: `budget: {unit_price: 0.025}`, or by"
            " endpoint: `unit_price: {fal-ai/flux/dev: 0.025}`.",
        )
    store.take_prices({one: price for one, price in prices.items() if price.at is not None}, prices)
    why = str(asked.error or "fal named none in US dollars")
    return Found(prices, trouble_of(endpoints, prices, why, at=at))


async def ask_prices(
    platform: FalPlatform,
    endpoints: Sequence[str],
    *,
    tries: int,
    timeout_s: float,
    at: float,
    within_s: float = inf,
) -> Asked:
    """fal's prices, and why some are missing; what came `within_s` seconds. One unknown endpoint refuses a whole
    question (fal-protocol §11.3), so after a refusal each is asked for alone."""
    asker = _PriceAsker(platform, at, timeout_s)
    groups = [list(endpoints[start : start + AT_ONCE]) for start in range(0, len(endpoints), AT_ONCE)]
    with anyio.move_on_after(within_s) as scope:
        for trial in range(tries):
            if trial:
                await anyio.sleep(PAUSE_S)
            groups = await asker.ask(groups)
            if not groups:
                break
    if scope.cancelled_caught and asker.last is None:
        asker.last = TransportError(f"fal did not answer within {within_s:g} s", kind="timeout", sent=True)
    return Asked(asker.heard, tuple(asker.unknown), asker.last)


class _PriceAsker:
    """Asks for prices in groups, and keeps what it hears."""

    def __init__(self, platform: FalPlatform, at: float, timeout_s: float) -> None:
        self._platform = platform
        self._at = at
        self._timeout_s = timeout_s
        self._turn = anyio.CapacityLimiter(QUESTIONS_AT_ONCE)
        self._failed: list[list[str]] = []
        self.heard: dict[str, Price] = {}
        self.unknown: list[str] = []
        self.last: WireError | None = None

    async def ask(self, groups: Sequence[list[str]]) -> list[list[str]]:
        """Ask about each of `groups`; returns those without an answer."""
        self._failed = []
        await self._ask_all(groups)
        return self._failed

    async def _ask_all(self, groups: Sequence[list[str]]) -> None:
        async with anyio.create_task_group() as tasks:
            for group in groups:
                tasks.start_soon(self._ask, group)

    async def _ask(self, group: list[str]) -> None:
        try:
            async with self._turn:
                self.heard |= await self._platform.prices(group, at=self._at, timeout_s=self._timeout_s)
        except WireError as error:
            self.last = error
            if not (isinstance(error, HttpError) and error.status == 404):
                self._failed.append(group)
            elif len(group) > 1:
                await self._ask_all([[one] for one in group])
            else:
                self.unknown += group


async def ask_estimates(
    platform: FalPlatform, book: PriceBook, endpoints: Iterable[str], *, at: float, within_s: float = inf
) -> dict[str, Estimate]:
    """What calls of `endpoints` cost on average, where fal answers `within_s` seconds; kept in `book`."""
    found: dict[str, Estimate] = {}
    turn = anyio.CapacityLimiter(QUESTIONS_AT_ONCE)

    async def find(endpoint: str) -> None:
        async with turn:
            try:
                found[endpoint] = await platform.estimate(endpoint, at=at, timeout_s=WANTED_S)
            except WireError:
                return  # an older one, or none, is named as such
        book.keep_estimate(endpoint, found[endpoint])

    with anyio.move_on_after(within_s):
        async with anyio.create_task_group() as group:
            for endpoint in endpoints:
                group.start_soon(find, endpoint)
    return found


def wants_estimate(price: Price | None) -> bool:
    """May fal's history have to tell what a call costs? Not where its units are counted, nor at the user's price."""
    if price is None:
        return True
    return price.at is not None and size_of({}, price.unit, {}).sure is not Sure.COUNTED


def tariffs_of(
    prices: Mapping[str, Price],
    defaults: Mapping[str, Mapping[str, Any] | None],
    learned: Mapping[tuple[str, str], Mapping[str, Learned]],
    *looks: Mapping[str, Iterable[tuple[bytes, float]]],
) -> dict[str, Tariff]:
    """What jobs of each endpoint cost, as far as it is known. `defaults` are those of their inputs. `learned` is what
    stands on record. Runs that knew no price left nothing there: each of `looks` is some bills of the same jobs, as
    (input, billable units)."""
    tariffs = {}
    for endpoint, price in prices.items():
        plain = tariff = Tariff(price, defaults.get(endpoint))
        for look in looks:
            seen = plain
            for given, units in look.get(endpoint, ()):
                seen = seen.after(seen.size(input_of(given)), units)
            tariff = tariff.beside(seen.learned)
        tariffs[endpoint] = tariff.beside(learned.get((endpoint, tariff.measure), {}))
    return tariffs


def open_spending(
    store: Store,
    prices: Mapping[str, Price],
    limit: int | None,
    defaults: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> Spending:
    """The batch's money at the start of a run: what earlier runs spent, what they left open, what they learned."""
    tariffs = tariffs_of(prices, defaults or {}, {})
    if limit is not None:
        dearest = {endpoint: store.bills(endpoint) for endpoint in prices}
        tariffs = tariffs_of(prices, defaults or {}, store.learned(), dearest, store.sample_bills(tuple(prices)))

    def expected(endpoint: str, given: bytes) -> int:
        tariff = tariffs.get(endpoint)
        return 0 if tariff is None else tariff.expected(tariff.size(input_of(given)))

    store.reserve_open(expected)
    return Spending(store.purse(limit), tariffs)
