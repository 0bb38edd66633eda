"""How many requests may be under way at once, apart from how many jobs are in flight (design §6)."""

from __future__ import annotations

import anyio

from falbatch.errors import TransportError


class Gate:
    """`places` to be taken and given back. Waiting here is provably before anything is sent."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = anyio.Semaphore(places, fast_acquire=True)

    async def enter(self, timeout_s: float, label: str) -> None:
        """Take a place; TransportError (`pool`, unsent) about the call `label` after `timeout_s`."""
        try:
            self._free.acquire_nowait()  # no deadline is armed when nobody has to wait: it costs 9 µs
            return
        except anyio.WouldBlock:
            pass
        try:
            with anyio.fail_after(timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise TransportError(
                f"{label}: waited {timeout_s:g} s behind {self._places} requests under way",
                sent=False,
                kind="pool",
            ) from None

    def leave(self) -> None:
        """Give the place back."""
        self._free.release()
