"""Endpoint ids: what may name a model, and the two paths made from it (fal-protocol §2).

Decides the grammar and nothing else: an id that passes here can go into a URL as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

NAMESPACES: Final = frozenset({"workflows", "comfy"})
"""First segments that stand before the owner (fal-protocol §2)."""

MAX_LENGTH: Final = 512
"""Characters; the longest real id has under a hundred. Keeps a pasted document out of URLs and messages."""

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~@+=-]+")
"""Characters that mean the same in a path with or without percent-encoding, so that no URL needs quoting."""
_LEGACY: Final = re.compile(r"([0-9]+)-([a-zA-Z0-9-]+)")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*/?([^?#]*)")
_RIGHT_FORM: Final = "an endpoint id looks like fal-ai/flux/dev: owner/alias, then an optional path"


@dataclass(frozen=True, slots=True)
class EndpointId:
    """A checked endpoint id: `[namespace/]owner/alias[/path]`."""

    namespace: str | None
    """`workflows` or `comfy`; None for ordinary models."""
    owner: str
    alias: str
    path: str | None
    """What follows the alias, without slashes at its ends; may hold several segments; None without."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The parts of `text`; `110602490-name` (legacy) means `110602490/name`.

        Raises ValueError, in words for the user, when `text` is no endpoint id.
        """
        _refuse_foreign(text)
        if legacy := _LEGACY.fullmatch(text):
            return cls(None, legacy[1], legacy[2], None)
        segments = text.split("/")
        for segment in segments:
            _check_segment(segment, text)
        namespace = segments.pop(0) if segments[0] in NAMESPACES else None
        if len(segments) < 2:
            missing = f"{namespace}/ needs an owner and a name after it" if namespace else _no_alias(text)
            raise ValueError(f"{text!r} is not an endpoint id: {missing}; {_RIGHT_FORM}")
        owner, alias, *rest = segments
        return cls(namespace, owner, alias, "/".join(rest) or None)

    @property
    def app_path(self) -> str:
        """`[namespace/]owner/alias`: what status, result and cancel are addressed to."""
        app = f"{self.owner}/{self.alias}"
        return f"{self.namespace}/{app}" if self.namespace else app

    @property
    def submit_path(self) -> str:
        """The full id: what submits are posted to."""
        return f"{self.app_path}/{self.path}" if self.path else self.app_path

    def __str__(self) -> str:
        return self.submit_path


def _no_alias(word: str) -> str:
    return f"it has no alias (`falbatch models {word}` searches)"


def _refuse_foreign(text: str) -> None:
    """Raise ValueError for things that people paste in place of an id: nothing, URLs, queries, documents."""
    if not text.strip():
        raise ValueError(f"the endpoint id is empty; {_RIGHT_FORM}")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the endpoint id has {len(text)} characters; {_RIGHT_FORM}")
    if url := _URL.match(text):
        inside = url[1].strip("/").removeprefix("models/")
        hint = f"write only {inside!r}" if inside else _RIGHT_FORM
        raise ValueError(f"{text!r} is a URL, not an endpoint id: {hint}")
    if "?" in text or "#" in text:
        bare = re.split(r"[?#]", text, maxsplit=1)[0]
        raise ValueError(f"{text!r} has a query or fragment, which an endpoint id cannot have; try {bare!r}")


def _check_segment(segment: str, text: str) -> None:
    if not segment:
        raise ValueError(f"{text!r} has an empty segment (a slash too many, or one at an end); try {_squeezed(text)!r}")
    if segment in {".", ".."}:
        raise ValueError(f"{text!r} has the segment {segment!r}, which would leave the endpoint; {_RIGHT_FORM}")
    if not _SEGMENT.fullmatch(segment):
        odd = next(c for c in segment if not _SEGMENT.fullmatch(c))
        raise ValueError(f"{text!r} has the character {odd!r}, which no endpoint id has; {_RIGHT_FORM}")


def _squeezed(text: str) -> str:
    return "/".join(part for part in text.split("/") if part)
