"""A real sandbox in its own process, shared by all tests of this folder and emptied before each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 10.0
KEY = {"Authorization": "Key me:secret"}


class Fal:
    """What a careful client does, over plain httpx."""

    def __init__(self, origin: str, headers: dict[str, str] | None = None) -> None:
        self.origin = origin
        self.http = self._client(KEY if headers is None else headers)
        self.public = self._client({})

    @staticmethod
    def _client(headers: dict[str, str]) -> httpx.Client:
        # Pooled connections would be met by resets that belong to other calls; certificates take long to load.
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(headers=headers, timeout=WAIT_S, limits=limits, verify=False, trust_env=False)

    def post(self, payload: object, endpoint: str = "fal-ai/flux/dev", **more: Any) -> httpx.Response:
        """Submit, whatever comes of it."""
        return self.http.post(f"{self.origin}/queue/{endpoint}", json=payload, **more)

    def submit(self, payload: object, endpoint: str = "fal-ai/flux/dev", **more: Any) -> dict[str, Any]:
        """Submit, successfully."""
        reply = self.post(payload, endpoint, **more)
        assert reply.status_code == 200, reply.text
        page: dict[str, Any] = reply.json()
        return page

    def get(self, url: str, **more: Any) -> httpx.Response:
        """GET with the key."""
        return self.http.get(url, **more)

    def status(self, request: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The status object."""
        page: dict[str, Any] = self.get(request["status_url"], **more).json()
        return page

    def until(self, request: dict[str, Any], status: str) -> dict[str, Any]:
        """Poll until the request is in `status`; fails after a while."""
        end, page = time.monotonic() + WAIT_S, dict[str, Any]()
        while time.monotonic() < end:
            page = self.status(request)
            if page["status"] == status:
                return page
            time.sleep(0.005)
        raise AssertionError(f"still not {status}: {page}")

    def result(self, request: dict[str, Any]) -> httpx.Response:
        """The result call's reply, once COMPLETED."""
        self.until(request, "COMPLETED")
        return self.get(request["response_url"])

    def run(self, payload: object, endpoint: str = "fal-ai/flux/schnell", **more: Any) -> dict[str, Any]:
        """The output of a request that succeeds."""
        reply = self.result(self.submit(payload, endpoint, **more))
        assert reply.status_code == 200, reply.text
        output: dict[str, Any] = reply.json()
        return output

    def cancel(self, request: dict[str, Any]) -> httpx.Response:
        """PUT …/cancel."""
        return self.http.put(request["cancel_url"])

    def file(self, url: str, **headers: str) -> httpx.Response:
        """GET a file without the key."""
        return self.public.get(url, headers=headers)

    def close(self) -> None:
        """Close both clients."""
        self.http.close()
        self.public.close()


@pytest.fixture(scope="session")
def _shared() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "7", "--speed", "25", "--concurrency", "3") as process:
        yield process
        process.stop()
        assert process.errors == ""  # no traceback, whatever the tests did to it


@pytest.fixture
def sandbox(_shared: SandboxProcess) -> SandboxProcess:
    """Seed 7, three at a time, 25 times as fast as fal; empty."""
    _shared.reset()
    return _shared


@pytest.fixture(scope="session")
def _client(_shared: SandboxProcess) -> Iterator[Fal]:
    client = Fal(_shared.origin)
    yield client
    client.close()


@pytest.fixture
def fal(sandbox: SandboxProcess, _client: Fal) -> Fal:
    """A client of `sandbox` for the account `me`."""
    return _client
