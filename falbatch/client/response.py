"""A reply as an error carries it: what httpx.Response offers to those who look at one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from falbatch.exactjson import parse_json


class Headers(Mapping[str, str]):
    """Headers by name, in whatever case it is written."""

    __slots__ = ("_known",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._known = {name.lower(): value for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        return self._known[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"Headers({sorted(self._known)})"


class Response:
    """A whole reply. Its `repr` holds nothing of the body, which may echo a whole input."""

    __slots__ = ("content", "headers", "status_code")

    def __init__(self, status_code: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status_code = status_code
        self.headers = Headers(headers)
        self.content = content

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 in it becomes U+FFFD."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body's JSON value, integers exact. Raises ValueError for what is not JSON."""
        return parse_json(self.content)

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"
