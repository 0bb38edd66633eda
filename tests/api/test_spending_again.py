"""A run with a limit on cost knows what the runs before it learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store.store import Store
from falbatch.api.pricing import open_spending, tariffs_of
from falbatch.core.changes import ResultStored, SubmitAccepted, SubmitStarted
from falbatch.core.money import NANO, Bill, Learned, Price
from tests.adapters.conftest import AT, item, planned, recording

if TYPE_CHECKING:
    from pathlib import Path

    from falbatch.core.record import OpenJob

pytestmark = pytest.mark.anyio

ENDPOINT = "fal-ai/flux/dev"
PRICES = {ENDPOINT: Price(NANO, "compute second")}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def reserved(store: Store, job: OpenJob) -> int:
    return await open_spending(store, PRICES, 100_000 * NANO).reserve(job)


async def test_the_dearest_rate_is_known_after_a_restart_though_its_bills_are_not_the_dearest(tmp_path: Path) -> None:
    """Of a file from before rates were on record: 510 jobs of 6 s for four images, as many of 3 s for one."""
    count = 1020
    items = [replace(item(seq), input={"n": seq} | ({"num_images": 4} if seq % 2 else {})) for seq in range(count)]
    with planned(tmp_path / "falbatch.db", items) as store:
        store.connection.executemany(
            "INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status,"
            " accepted_at) VALUES (?, ?, 1, '', '', '', 'completed', 0)",
            [(f"{seq * 7919 % count:08x}", seq + 1) for seq in range(count)],
        )
        store.connection.execute("UPDATE requests SET billable_units = CASE job_id % 2 WHEN 1 THEN 3.0 ELSE 6.0 END")
        assert {units for _, units in store.bills(ENDPOINT)} == {6.0}
        assert await reserved(store, store.job(1)) >= 3 * NANO


async def test_a_rate_on_record_is_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falbatch.adapters.store.spending.LOOKED_THROUGH", 0)
    state = tmp_path / "falbatch.db"
    with planned(state, [item(seq) for seq in range(3)]) as store:
        async with recording(store):
            for job_id, rate in ((1, 3.0), (2, 1.0)):
                request_id = f"r-{job_id}"
                bill = Bill(ENDPOINT, "compute second without a schema", "", rate)
                await store.record(
                    SubmitStarted(job_id, 1, AT),
                    SubmitAccepted(job_id, 1, AT, request_id, "", "", ""),
                    ResultStored(job_id, request_id, AT, b"{}", "", billable_units=None, bill=bill),
                )
    with Store.open(state) as store:
        assert store.learned() == {
            (ENDPOINT, "compute second without a schema"): {"": Learned(2, 3.0, total=4.0, squares=10.0)}
        }
        assert await reserved(store, store.job(3)) >= 3 * NANO
        # In another measure the same jobs had other sizes.
        (tariff,) = tariffs_of(PRICES, {ENDPOINT: {}}, store.learned()).values()
        assert tariff.learned == {}
