"""What carries an exchange: the small interface under which one HTTP library takes another's place.

    Transport ─▶ Carrier ─▶ aiohttp (`aiohttp_carrier`) | an httpx client or transport (`httpx_carrier`) | …

Which failures mean that nothing was sent is each carrier's own knowledge: its library raises them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping


@dataclass(frozen=True, slots=True)
class Call:
    """One request, ready to leave."""

    method: str
    url: str
    """Checked; travels as it is."""
    headers: Mapping[str, str]
    body: bytes | None
    connect_s: float
    """For DNS, TCP and TLS together."""
    idle_s: float | None
    """For each silence in the reply."""
    once: bool
    """Never send it again, not even a GET whose connection broke."""


class Told(NamedTuple):
    """What a library's exception says of a call."""

    kind: str
    """One of `errors.TransportError`'s words."""
    sent: bool
    """False when nothing of the request can have left."""
    cause: BaseException
    """What the system said, if it did."""


class Head(Protocol):
    """The head of a reply, its body still to come."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of a repeated header, the last."""
        ...

    def chunks(self) -> AsyncIterable[bytes]:
        """The body as it comes, once; packed, if it is."""
        ...

    async def aclose(self) -> None:
        """Be done with the reply. A connection whose body was not read to its end is closed."""
        ...


class Carrier(Protocol):
    """Sends requests over connections of its own. Repeats nothing, follows no redirect, keeps no cookies."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """All that it raises for the network's and the server's doings. Other exceptions are bugs."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...

    async def open(self, call: Call) -> Head:
        """Send `call`; return when the head of the reply is there. Raises one of `errors`."""
        ...

    def told(self, error: Exception) -> Told:
        """What one of `errors` says."""
        ...
