"""Fixtures of the wire's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.fal.transport import Transport, TransportSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(settings=TransportSettings(trust_env=False)) as one:
        yield one
