"""Is this webhook fal's? For whoever receives them with a server of their own (fal-protocol §4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falbatch.client.connections import USER_AGENT
from falbatch.client.errors import client_error
from falbatch.errors import WireError
from falbatch.fal.webhooks import Jwks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.client.connections import Connections
    from falbatch.fal.webhooks import Delivery


class Webhooks:
    """Part of AsyncClient."""

    connections: Connections
    _jwks: tuple[Any, Jwks] | None = None
    """fal's keys, over the connections of one event loop."""

    async def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """What a webhook says, once its signature, its time and its body have proved to be fal's.

        `body` is what came over the line, to the byte; header names in any case. fal's public keys are fetched when
        first needed and kept for a day. Raises WebhookRefused, a ValueError: answer 401 and do nothing; and
        FalClientError when the keys cannot be had: answer 503, and fal comes again. A webhook may come twice or never.
        Needs the extra `webhooks`.
        """
        session = await self.connections.here()
        if self._jwks is None or self._jwks[0] is not session:
            self._jwks = session, Jwks(session.transport, session.hosts.need("rest"), user_agent=USER_AGENT)
        given = {name.lower(): value for name, value in headers.items()}
        try:
            return await self._jwks[1].verify(given, body)
        except WireError as error:
            raise client_error(error, None, session.credentials.redact) from error
