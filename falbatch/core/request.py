"""The manifest's `request` section: what is asked of fal with each submit (fal-protocol §3.1, §6.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003  (pydantic reads the annotations)
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from falbatch.core.problems import shown
from falbatch.core.schema import Expected, Section, whole

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header name (RFC 9110 §5.1)."""
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_TAG_KEY: Final = re.compile(r"[a-z0-9._-]{1,64}")
_TAG_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x7e]{1,256}")
_MAX_TAGS: Final = 10
_MAX_TAGS_BYTES: Final = 1024
_URL: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?#][\x21-\x7e]*)?",
    re.IGNORECASE,
)
_MAX_URL: Final = 2048
_MAX_HEADERS: Final = 50
_MAX_HEADER_BYTES: Final = 4096
"""Bytes of one header value: servers commonly refuse 8 KiB for all headers together."""
_LONGEST_S: Final = 30 * 86400
"""Seconds fal keeps a request; nothing can wait longer."""
_YEAR_S: Final = 366 * 86400

_CONNECTION: Final = frozenset(
    [
        "authorization",
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "proxy-authorization",
        "proxy-connection",
        "expect",
        "accept",
        "accept-encoding",
        "cookie",
        "user-agent",
    ]
)
"""Headers that carry the key or belong to the connection."""
_OURS: Final = {
    "x-fal-request-timeout": "request.start_timeout_s",
    "x-fal-request-start-timeout": "request.start_timeout_s",
    "x-fal-queue-priority": "request.priority",
    "x-fal-runner-hint": "request.hint",
    "x-fal-store-io": "request.store_io",
    "x-fal-object-lifecycle-preference": "request.expires_in",
    "x-fal-object-lifecycle": "request.expires_in",
    "x-app-fal-disable-fallback": "request.fallback",
    "x-fal-disable-fallbacks": "request.fallback",
    "x-fal-tags": "request.tags",
}
"""Headers that falbatch sets itself, in lower case → the key to use instead."""

ExpiresIn = Literal["never", "immediate", "1h", "1d", "7d", "30d", "1y"]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _check_header(name: str, value: Any) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{shown(name)} is not a header name; use letters, digits and -")
    if name.lower() in _CONNECTION:
        raise ValueError(f"{name} is set by the connection and may not be given")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by falbatch; use {_OURS[name.lower()]}")
    if not _is_text(value):
        raise ValueError(f'{name} must be text, not {shown(value)}; write "{shown(value)}"')
    if not _PRINTABLE.fullmatch(value) or value != value.strip() or len(value) > _MAX_HEADER_BYTES:
        raise ValueError(
            f"{name} must be one line of plain ASCII, at most {_MAX_HEADER_BYTES} long, no space at its ends"
        )


def _check_headers(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if len(value) > _MAX_HEADERS:
        raise ValueError(f"at most {_MAX_HEADERS} headers")
    seen: dict[str, str] = {}
    for name, text in value.items():
        _check_header(name, text)
        if name.lower() in seen:
            raise ValueError(f"{name} and {seen[name.lower()]} are the same header")
        seen[name.lower()] = name
    return value


def _check_tags(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if len(value) > _MAX_TAGS:
        raise ValueError(f"at most {_MAX_TAGS} tags, not {len(value)}")
    for key, text in value.items():
        if not _TAG_KEY.fullmatch(key):
            raise ValueError(f"{shown(key)} is not a tag name; at most 64 of a-z 0-9 . _ -")
        if key.startswith("fal."):
            raise ValueError(f"{key}: names that begin with fal. belong to fal")
        if not _is_text(text):
            raise ValueError(f'{key} must be text, not {shown(text)}; write "{shown(text)}"')
        if not _TAG_VALUE.fullmatch(text):
            raise ValueError(f"{key} must be 1 to 256 plain ASCII characters without a comma")
    if len(",".join(f"{key}={text}" for key, text in value.items())) > _MAX_TAGS_BYTES:
        raise ValueError(f"all tags together may have {_MAX_TAGS_BYTES} bytes")
    return value


def _check_webhook(value: Any) -> Any:
    if not _is_text(value):
        return value
    found = _URL.fullmatch(value)
    if found is None or len(value) > _MAX_URL or not 0 < int(found["port"] or 443) < 65536:
        raise ValueError("not a URL that fal could call: https://, a host, no spaces, nothing but plain ASCII")
    return value


class RequestSpec(Section):
    """What is asked of fal with each submit."""

    priority: Annotated[Literal["normal", "low"] | None, Expected("normal or low")] = None
    """Queue priority; None leaves it to fal. Low waits behind every normal request of every caller."""
    start_timeout_s: Annotated[
        float | None,
        Field(gt=1, le=_LONGEST_S),
        Expected(f"a number of seconds above 1, at most {_LONGEST_S}"),
    ] = None
    """Seconds within which fal must start a job; None waits without end."""
    headers: Annotated[
        Mapping[str, str],
        BeforeValidator(_check_headers),
        Field(
            json_schema_extra={
                "propertyNames": {"pattern": whole(_TOKEN)},
                "additionalProperties": {
                    "type": "string",
                    "pattern": whole(_PRINTABLE),
                    "maxLength": _MAX_HEADER_BYTES,
                },
                "maxProperties": _MAX_HEADERS,
            }
        ),
        Expected("a mapping of header names to text"),
    ] = Field(default_factory=dict)
    """Further headers of each submit; passed on to the app."""
    hint: Annotated[
        str | None,
        Field(min_length=1, max_length=256, json_schema_extra={"pattern": whole(_PRINTABLE)}),
        Expected("one line of 1 to 256 plain ASCII characters"),
    ] = None
    """Runner hint: jobs with equal hints tend to meet the same runner."""
    tags: Annotated[
        Mapping[str, str],
        BeforeValidator(_check_tags),
        Field(
            json_schema_extra={
                "propertyNames": {"pattern": rf"^(?!fal\.){_TAG_KEY.pattern}$"},
                "additionalProperties": {"type": "string", "pattern": whole(_TAG_VALUE)},
                "maxProperties": _MAX_TAGS,
            }
        ),
        Expected("a mapping of tag names to text"),
    ] = Field(default_factory=dict)
    """Labels for fal's billing."""
    expires_in: Annotated[
        ExpiresIn | Annotated[float, Field(gt=0, le=_YEAR_S)] | None,
        Expected("never, immediate, 1h, 1d, 7d, 30d, 1y, or a number of seconds above 0"),
    ] = None
    """How long fal keeps the files a job makes (words or seconds); None leaves it to fal."""
    store_io: Annotated[bool | None, Expected("true or false")] = None
    """Whether fal keeps input and output of a request; None leaves it to fal."""
    fallback: Annotated[bool | None, Expected("true or false")] = None
    """Whether fal may run an equivalent model instead; None leaves it to fal."""
    webhook: Annotated[
        str | None,
        BeforeValidator(_check_webhook),
        Field(json_schema_extra={"pattern": r"^[hH][tT][tT][pP][sS]?://[\x21-\x7e]+$", "maxLength": _MAX_URL}),
        Expected("an https URL of at most 2048 plain ASCII characters"),
    ] = None
    """A URL of the user's own that fal calls when a request has ended; falbatch does not listen there."""

    @field_validator("hint")
    @classmethod
    def _check_hint(cls, value: str | None) -> str | None:
        if value is not None and (not _PRINTABLE.fullmatch(value) or value != value.strip()):
            raise ValueError("one line of plain ASCII, no space at its ends")
        return value
