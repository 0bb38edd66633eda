"""Which endpoints fal has, and what they take and give (fal-protocol §11.1, §11.2). Reads only, one exchange each.

The key is optional for the list (it brings a higher rate limit) and never sent for a schema: those are public.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from falbatch.errors import FalbatchError, ReplyError, WireError
from falbatch.exactjson import is_nested_within
from falbatch.fal.calls import read_object
from falbatch.fal.endpoint import EndpointId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from falbatch.fal.auth import Credentials
    from falbatch.fal.hosts import Hosts
    from falbatch.fal.queue import Exchange

__all__ = ["CatalogueClient", "Model", "ModelsPage"]

TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 32 * 1024 * 1024
"""A schema has tens of kilobytes, a page of models some hundred."""
MAX_LEVELS: Final = 200
"""Of a reply, one in another: a schema has a dozen or two, and what reads and writes schemas recurses."""
NEAR_SEARCHES: Final = 3
"""Questions to fal's list after an endpoint that it does not have."""
NEAR: Final = 0.7
"""How alike two ids must be, from 0 to 1, for one to be taken for the other."""
MAX_LIMIT: Final = 100
"""Models of a page that are asked for at most."""


@dataclass(frozen=True, slots=True)
class Model:
    """An endpoint as fal lists it; "" and () for what it does not say."""

    endpoint: str
    name: str
    category: str
    """`text-to-image`, `image-to-video` …"""
    status: str
    """`active` or `deprecated`."""
    description: str
    tags: tuple[str, ...]
    record: Mapping[str, Any]
    """All that fal said."""


@dataclass(frozen=True, slots=True)
class ModelsPage:
    """Some of fal's models."""

    models: tuple[Model, ...]
    next_cursor: str | None
    """For the next page; None on the last."""


class CatalogueClient:
    """Reads the list of models and their schemas. Stateless; safe to share between tasks.

    Failures: TransportError, HttpError (404 for an endpoint that fal does not have), ReplyError, UsageError when
    no such address is known for this fal, ValueError for an endpoint id that is none.
    """

    def __init__(
        self, transport: Exchange, hosts: Hosts, credentials: Credentials | None, *, user_agent: str = "falbatch"
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._redact = credentials.redact if credentials else str
        self._public = {"user-agent": user_agent, "accept": "application/json"}
        self._keyed = {**self._public, "authorization": credentials.header()} if credentials else self._public

    async def models(
        self,
        query: str = "",
        *,
        category: str = "",
        status: str = "",
        endpoints: Sequence[str] = (),
        limit: int = MAX_LIMIT,
        cursor: str | None = None,
    ) -> ModelsPage:
        """A page of the models that match; `limit` is 1 to 100, `status` `active` or `deprecated`."""
        asked = {"q": query, "category": category, "status": status, "endpoint_id": ",".join(endpoints)}
        asked |= {"limit": str(limit), "cursor": cursor or ""}
        wanted = urlencode({name: value for name, value in asked.items() if value}, safe=",/")
        document, call = await self._get(f"{self._hosts.need('api')}/models?{wanted}", self._keyed)
        models = document.get("models")
        if not isinstance(models, list):
            raise ReplyError(f"{call}: the reply has no list of models")
        following = document.get("next_cursor")
        has_more = document.get("has_more") is not False and isinstance(following, str) and following != cursor
        found = tuple(model for model in map(_model, models) if model is not None)
        return ModelsPage(found, following or None if has_more else None)

    async def schema(self, endpoint: str) -> dict[str, Any]:
        """The endpoint's OpenAPI document, as fal gives it."""
        wanted = urlencode({"endpoint_id": str(EndpointId.parse(endpoint))}, safe="/")
        document, call = await self._get(f"{self._hosts.need('openapi')}/queue/openapi.json?{wanted}", self._public)
        if not isinstance(document.get("paths"), dict):
            raise ReplyError(f"{call}: the reply is no OpenAPI document")
        return document

    async def near(self, endpoint: str) -> list[str]:
        """Up to three endpoints with ids like `endpoint`; none where the list cannot be had. Raises nothing.

        fal searches by words, so each part of the id is looked for by itself: one of them may be spelled wrongly.
        """
        words = sorted(dict.fromkeys(re.findall(r"[A-Za-z0-9.]+", endpoint.partition("/")[2])), key=len, reverse=True)
        listed: dict[str, None] = {}
        with contextlib.suppress(WireError, FalbatchError, ValueError):
            for word in words[:NEAR_SEARCHES]:
                listed |= {model.endpoint: None for model in (await self.models(word)).models}
        return get_close_matches(endpoint, listed, n=3, cutoff=NEAR)

    async def _get(self, url: str, headers: Mapping[str, str]) -> tuple[dict[str, Any], str]:
        document, call = await read_object(
            self._transport, url, headers=headers, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES, redact=self._redact
        )
        if not is_nested_within(document, MAX_LEVELS):
            raise ReplyError(f"{call}: the reply is nested more than {MAX_LEVELS} levels deep")
        return document, call


def _model(entry: Any) -> Model | None:
    """One entry of the list; None when it names no endpoint."""
    if not isinstance(entry, dict) or not (endpoint := _line(entry.get("endpoint_id"))):
        return None
    about = entry.get("metadata")
    told: dict[str, Any] = about if isinstance(about, dict) else {}
    tags = told.get("tags")
    return Model(
        endpoint=endpoint,
        name=_line(told.get("display_name")),
        category=_line(told.get("category")),
        status=_line(told.get("status")),
        description=_line(told.get("description")),
        tags=tuple(_line(tag) for tag in tags) if isinstance(tags, list) else (),
        record=entry,
    )


def _line(value: Any) -> str:
    """Text as one printable line: it goes to people's terminals."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value[:2000]).split())
