"""A run's door for fal's calls: where it is, who may use it, and what is told of those who may not.

listener ─▶ token of this batch? ─▶ signed by fal? ─▶ the run, while it goes on

Before and after, calls are answered 503: fal comes again, for hours.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

from falbatch.core.callback import SECRET_BYTES, CallbackUrls, attempt_of, parse_place
from falbatch.core.events import CallbacksCounted, Listener, Notice
from falbatch.errors import UsageError
from falbatch.fal.transport import Transport, TransportSettings
from falbatch.fal.webhooks import SIGNATURE_HEADERS, Delivery, Jwks, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from falbatch.adapters import callbacks
    from falbatch.adapters.store.store import Store
    from falbatch.api.connect import Target
    from falbatch.core.callback import CallbackPlace
    from falbatch.core.manifest import Manifest
    from falbatch.engine.execute import Execution

TOLD_EVERY_S: Final = 60.0
"""Between two notices about refused calls of one kind: whatever is open to the internet is knocked at all day."""

KEYS_TRANSPORT: Final = TransportSettings(gate=2, connections=2)
"""fal's public keys are fetched once a day."""


def place_of(listen: str | None, url: str | None, manifest: Manifest) -> CallbackPlace | None:
    """Where a run listens for fal's calls, None where it does not. Raises `UsageError`."""
    if listen is None and url is None:
        return None
    if listen is None or url is None:
        raise UsageError(
            "--webhook-listen and --webhook-url go together: where to listen, and what fal shall call to get there",
            advice="Give both, such as --webhook-listen 127.0.0.1:8099 --webhook-url https://hooks.example.org/fal.",
        )
    if manifest.mode.is_direct:
        raise UsageError(
            f"--webhook-listen makes no sense with mode: {manifest.mode.value}, whose calls bring their answers",
            advice="Leave it out, or use mode: queue.",
        )
    if manifest.request.webhook is not None:
        raise UsageError(
            "--webhook-listen and the manifest's request.webhook exclude each other: fal calls one URL per request",
            advice="Remove one of them.",
        )
    try:
        return parse_place(listen, url)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_place(place: CallbackPlace | None, target: Target) -> None:
    """Refuse a place that fal cannot call, or whose calls nobody could verify. Raises `UsageError`."""
    if place is None:
        return
    if target.costs and place.is_private:
        raise UsageError(
            f"--webhook-url: fal does not call {place.public_host}, which the internet does not lead to",
            advice="Put a tunnel or a proxy in front of the listener, and give its public https URL.",
        )
    target.hosts.need("rest")


class Door:
    """The open listener of one run. Belongs to its event loop."""

    def __init__(self, place: CallbackPlace, secret: bytes, listen: Listener) -> None:
        self.urls = CallbackUrls(place.public_url, secret)
        self._place = place
        self._listen = listen
        self._execution: Execution | None = None
        self._listener: callbacks.Listener[Delivery] | None = None
        self._told_at_s: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def opened(self, rest_url: str) -> AsyncIterator[Door]:
        """Listen. Raises `UsageError` when that cannot be done, or `cryptography` is missing."""
        from falbatch.adapters import callbacks  # a server's code, of no use to most runs

        settings = callbacks.Settings(
            SIGNATURE_HEADERS, host=self._place.host, port=self._place.port, prefix=self._place.path
        )
        async with Transport(settings=KEYS_TRANSPORT) as transport:
            jwks = Jwks(transport, rest_url)
            async with callbacks.listen(
                settings, knows=self._knows, verify=jwks.verify, deliver=self._deliver, refused=self._refused
            ) as self._listener:
                yield self

    @contextlib.contextmanager
    def attached(self, execution: Execution) -> Iterator[None]:
        """Hand what comes to `execution` while the block runs; tell what came at its end."""
        before = self._counts()
        here = f"{self._place.host}:{self._place.port}"
        self._listen(Notice(f"listening for fal's webhooks on {here}, which fal calls as {self._place.public_url}/…"))
        self._execution = execution
        try:
            yield
        finally:
            self._execution = None
            self._listen(CallbacksCounted(*(now - then for now, then in zip(self._counts(), before, strict=True))))

    def _knows(self, token: str) -> bool:
        return attempt_of(self.urls.secret, token) is not None

    def _deliver(self, token: str, delivery: Delivery) -> None:
        attempt = attempt_of(self.urls.secret, token)
        if attempt is None or self._execution is None:
            raise LookupError("nobody waits for it now")
        error = (delivery.error or delivery.status.value) if delivery.status is Outcome.ERROR else None
        self._execution.called_back(*attempt, delivery.request_id, error)

    def _refused(self, reason: str, peer: str) -> None:
        """Tell the first of each kind, and how many came when it is time to tell again."""
        kind, now_s = reason.partition(":")[0], time.monotonic()
        if now_s - self._told_at_s.get(kind, float("-inf")) < TOLD_EVERY_S:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        self._told_at_s[kind] = now_s
        others = f" ({others:,} more since this was last told)" if (others := self._untold.pop(kind, 0)) else ""
        self._listen(Notice(f"a call of the webhook listener was refused, from {peer}: {reason}{others}"))

    def _counts(self) -> tuple[int, int, int]:
        listener = self._listener
        if listener is None:
            return 0, 0, 0
        return listener.delivered, listener.repeated, listener.refusals.total()


@contextlib.asynccontextmanager
async def open_door(
    place: CallbackPlace | None, target: Target, store: Store, listen: Listener
) -> AsyncIterator[Door | None]:
    """Listen at `place`, or nowhere. The caller keeps a new secret (`Store.keep_callback_secret`) once the batch is on
    record. Raises `UsageError`."""
    if place is None:
        yield None
        return
    secret = store.callback_secret() or os.urandom(SECRET_BYTES)
    async with Door(place, secret, listen).opened(target.hosts.need("rest")) as door:
        yield door
