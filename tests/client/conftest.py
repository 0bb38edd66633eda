"""A sandbox for all tests of the client, named by the environment as a user would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.client import AsyncClient, ClientSettings, Repeats, SyncClient
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KEY = "kid-0001:ksecret-0002"
SETTINGS = ClientSettings(repeats=Repeats(attempts=4, first_s=0.01, cap_s=0.05))


def requests(sandbox: SandboxProcess) -> dict[str, dict[str, int]]:
    """How many calls of each kind came, by status; without those of the tests themselves."""
    counted: dict[str, dict[str, int]] = sandbox.stats()["requests"]
    return {kind: by_status for kind, by_status in counted.items() if kind != "sandbox"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def _shared() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "7", "--speed", "50") as process:
        yield process
        process.stop()
        assert process.errors == ""


@pytest.fixture
def sandbox(_shared: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """An empty sandbox, and an environment that names it and a key."""
    _shared.reset()
    _shared.clear_faults()
    monkeypatch.setenv("FALBATCH_ORIGIN", _shared.origin)
    monkeypatch.setenv("FAL_KEY", KEY)
    return _shared


@pytest.fixture
async def client(sandbox: SandboxProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(settings=SETTINGS) as one:
        yield one


@pytest.fixture
def sync_client(sandbox: SandboxProcess) -> Iterator[SyncClient]:
    with SyncClient(settings=SETTINGS) as one:
        yield one
