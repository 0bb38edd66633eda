"""`GET /v1/models`: which models there are (fal-protocol §11.1). Pure.

Listed are those whose schemas are known. The sandbox runs any other id as well, but has nothing to say about it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.catalogue.document import model_url, openapi_document, thumbnail_url
from falbatch.sandbox.catalogue.models import MODELS
from falbatch.sandbox.endpoints import profile_of
from falbatch.sandbox.platform_query import Refused, all_values, at_most, whole, word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.catalogue.model import Model

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100

_EXPANSIONS: Final = ("openapi-3.0", "enterprise_status")


def models_page(query: Mapping[str, str], *, has_key: bool) -> dict[str, Any]:
    """One page of the models that the parameters ask for. Raises Refused."""
    expand = all_values(query, "expand")
    if set(expand) - {*_EXPANSIONS}:
        raise Refused(f"expand: expected {' or '.join(_EXPANSIONS)}, not {', '.join(expand)}")
    found = [model for model in _named(query) if _is_asked_for(model, query)]
    first = _first(query.get("cursor"))
    limit = whole(query, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    has_more = len(found) > first + limit
    return {
        "models": [_item(model, expand, has_key=has_key) for model in found[first : first + limit]],
        "next_cursor": _cursor(first + limit) if has_more else None,
        "has_more": has_more,
    }


def _named(query: Mapping[str, str]) -> list[Model]:
    """The models that `endpoint_id` names, in its order; all without it. Raises Refused (404)."""
    wanted = at_most(all_values(query, "endpoint_id"), "endpoint_id")
    unknown = [text for text in wanted if text not in MODELS]
    if unknown:
        raise Refused(f"Endpoint not found: {', '.join(unknown)}", 404)
    return [MODELS[text] for text in wanted] if wanted else [*MODELS.values()]


def _is_asked_for(model: Model, query: Mapping[str, str]) -> bool:
    status = word(query, "status", ("active", "deprecated"))
    if status is not None and status != _status(model):
        return False
    category = query.get("category")
    if category and category != model.category:
        return False
    text = " ".join((model.endpoint, model.display_name, model.description, model.category, *model.tags)).lower()
    return all(part in text for part in query.get("q", "").lower().split())


def _item(model: Model, expand: list[str], *, has_key: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"endpoint_id": model.endpoint, "metadata": _metadata(model, has_key=has_key)}
    if "openapi-3.0" in expand:
        item["openapi"] = openapi_document(model)
    if "enterprise_status" in expand:
        item["enterprise_status"] = "ready"
    return item


def _metadata(model: Model, *, has_key: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "display_name": model.display_name,
        "category": model.category,
        "description": model.description,
        "status": _status(model),
        "tags": [*model.tags],
        "updated_at": model.date,
        "date": model.date,
        "is_favorited": False if has_key else None,
        "thumbnail_url": thumbnail_url(model),
        "model_url": model_url(model),
        "license_type": "commercial",
        "kind": "training" if model.is_training else "inference",
        "highlighted": False,
        "pinned": False,
        "duration_estimate": round(profile_of(model.endpoint).median_s / 60, 4),
    }
    if model.group is not None:
        metadata["group"] = dict(zip(("key", "label"), model.group, strict=True))
    if model.is_training:
        metadata["inference_endpoint_ids"] = [*model.trained_for]
    if model.has_stream:
        metadata["stream_url"] = f"https://fal.run/{model.endpoint}/stream"
    return metadata


def _status(model: Model) -> str:
    return "deprecated" if model.is_deprecated else "active"


def _cursor(place: int) -> str:
    return base64.urlsafe_b64encode(f"models:{place}".encode()).decode().rstrip("=")


def _first(cursor: str | None) -> int:
    """Where a page begins. Raises Refused for what `_cursor` did not make."""
    if cursor is None:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        kind, _, place = text.partition(":")
        if kind != "models" or not place.isdecimal():
            raise ValueError(text)
        return int(place)
    except (ValueError, binascii.Error):
        raise Refused(f"cursor: not one of this list: {cursor[:80]!r}") from None
