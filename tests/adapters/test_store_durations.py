"""What the engine learns of durations is kept as it came, and there when the file is opened again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store.store import Store
from falbatch.core.changes import DurationsLearned
from tests.adapters.conftest import AT, item, planned, recording

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_sketches_are_kept_by_endpoint_the_latest_one_each(tmp_path: Path) -> None:
    state = tmp_path / "falbatch.db"
    with planned(state, [item(0)]) as store:
        assert store.sketches() == {}
        async with recording(store):
            await store.record(DurationsLearned("a/b", b"\x00one", AT), DurationsLearned("c/d", b"two", AT))
            await store.record(DurationsLearned("a/b", b"three", AT + 60))
        assert store.sketches() == {"a/b": b"three", "c/d": b"two"}
    with Store.open(state) as store:
        assert store.sketches() == {"a/b": b"three", "c/d": b"two"}
