"""What is worth knowing before a plan or a run is waited for a little, together, and kept as far as it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from falbatch.adapters.cache import Cache
from falbatch.api.preflight import PATIENCE_S, STATUS_S, ask
from falbatch.api.pricing import PriceBook
from falbatch.api.quoting import Told, find_out, together
from falbatch.api.windows import Windows
from falbatch.core.money import NANO, Price
from falbatch.core.pricing import Estimate
from falbatch.errors import HttpError, TransportError, UsageError
from tests.engine.fakes import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falbatch.fal.catalogue import CatalogueClient

pytestmark = pytest.mark.anyio

SCHEMA: dict[str, Any] = {"openapi": "3.0.4", "paths": {}}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The clock jumps to the next moment at which something happens."""
    return "asyncio", {"loop_factory": VirtualLoop}


@dataclass
class SlowFal:
    """fal's catalogue and platform, at both ends: each answers after its time."""

    schema_s: float = 0.0
    status_s: float = 0.0
    price_s: float = 0.0
    estimate_s: float = 0.0
    unknown: Sequence[str] = ()
    """Endpoints of which it knows no price."""
    asked: list[str] = field(default_factory=list)

    async def schema(self, endpoint: str) -> dict[str, Any]:
        self.asked.append(f"schema {endpoint}")
        await anyio.sleep(self.schema_s)
        return SCHEMA

    async def models(self, *, endpoints: Sequence[str]) -> Any:
        self.asked.append("status")
        await anyio.sleep(self.status_s)
        return SimpleNamespace(models=[SimpleNamespace(endpoint=one, status="deprecated") for one in endpoints])

    async def prices(self, endpoints: Sequence[str], *, at: float, timeout_s: float) -> dict[str, Price]:
        self.asked.append("price")
        await self._answer(self.price_s, timeout_s)
        if set(endpoints) & set(self.unknown):
            raise HttpError("unknown", status=404)
        return {one: Price(NANO, "compute second", at) for one in endpoints}

    async def estimate(self, endpoint: str, *, at: float, timeout_s: float) -> Estimate:
        self.asked.append(f"estimate {endpoint}")
        await self._answer(self.estimate_s, timeout_s)
        return Estimate(NANO, at)

    @staticmethod
    async def _answer(seconds: float, timeout_s: float) -> None:
        await anyio.sleep(min(seconds, timeout_s))
        if seconds > timeout_s:
            raise TransportError("no answer", kind="timeout", sent=True)


async def told(fal: SlowFal, count: int, *, waits_for_statuses: bool = True) -> tuple[Told, float]:
    """What is found out about so many endpoints, and how long it took."""
    windows = Windows(cast("Any", fal), cast("Any", fal))
    names = [f"a/{number}" for number in range(count)]
    began = anyio.current_time()
    book = PriceBook(None, Cache(None), {}, "")
    found = await find_out(windows, Cache(None), book, names, waits_for_statuses=waits_for_statuses)
    return found, anyio.current_time() - began


@pytest.mark.parametrize("count", [1, 60, 200])
@pytest.mark.parametrize("price_s", [0.0, 99.0])
async def test_where_everything_hangs_nobody_waits_longer_than_once(count: int, price_s: float) -> None:
    found, seconds = await told(SlowFal(99, 99, price_s, 99), count)
    assert seconds <= PATIENCE_S
    assert all("did not answer" in facts.why for facts in found.facts.values())
    assert bool(found.prices) == (not price_s)
    assert bool(found.trouble) == bool(price_s)


async def test_what_came_before_the_end_is_kept() -> None:
    """Of 60 endpoints eight are asked about at a time, each for about a second."""
    found, seconds = await told(SlowFal(schema_s=1.1, estimate_s=0.9), 60)
    assert seconds <= PATIENCE_S
    assert len([1 for facts in found.facts.values() if facts.document]) == 32
    assert len(found.prices) == 60
    assert len(found.estimates) == 40


async def test_prices_after_a_refusal_are_bounded_too() -> None:
    found, seconds = await told(SlowFal(price_s=1.0, unknown=["a/3"]), 60)
    assert seconds <= PATIENCE_S
    assert 0 < len(found.prices) < 60
    assert "a/3" not in found.prices


async def test_a_status_that_hangs_holds_up_no_schema() -> None:
    found, seconds = await told(SlowFal(schema_s=0.5, status_s=99), 60)
    assert all(facts.document and not facts.why for facts in found.facts.values())
    assert seconds == pytest.approx(8 * 0.5 + STATUS_S)
    found, seconds = await told(SlowFal(schema_s=0.5, status_s=99), 60, waits_for_statuses=False)
    assert seconds == pytest.approx(8 * 0.5)


async def test_a_status_that_comes_is_told() -> None:
    fal = cast("CatalogueClient", SlowFal(schema_s=0.2, status_s=0.9))
    facts = await ask(["a/1"], Cache(None), fal)
    assert facts["a/1"].status == "deprecated"


async def test_a_price_that_is_needed_and_lacks_is_said_at_once() -> None:
    async def lacks() -> None:
        await anyio.sleep(1)
        raise UsageError("no price")

    began = anyio.current_time()
    with pytest.raises(UsageError, match="no price"):
        await together(ask(["a/1"], Cache(None), cast("CatalogueClient", SlowFal(schema_s=3))), lacks())
    assert anyio.current_time() - began == 1
