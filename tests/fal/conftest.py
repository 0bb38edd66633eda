"""Fixtures of the wire's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.fal.transport import CARRIERS, VARIABLE, Transport, TransportSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What stands under every transport of the test: each must behave like the others."""
    name: str = request.param
    monkeypatch.setenv(VARIABLE, name)
    return name


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """One for the test; by `carrier` where the test asks for that."""
    async with Transport(settings=TransportSettings(trust_env=False)) as one:
        yield one
