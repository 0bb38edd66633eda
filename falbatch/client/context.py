"""Calls made from inside a fal app pass on what its own request was given (fal-protocol §3.1, custom headers)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

TOKEN: Final = "x-fal-cdn-token"  # noqa: S105 - a header's name
PASSED_ON: Final = (TOKEN, "x-app-fal-can-disable-filter")

_app: Callable[[], Any] | None = None


def set_get_current_app(func: Callable[[], Any]) -> None:
    """Say how the app that is running, if any, is found: `func()` gives it or None. For fal's own runtime."""
    global _app  # noqa: PLW0603 - fal_client's interface is one for the process
    _app = func


def passed_on(headers: Mapping[str, str] | None) -> dict[str, str]:
    """`headers` and, inside an app, those of its request that go on to the next."""
    kept = {} if (given := _request_headers()) is None else given
    taken = {name.lower() for name in headers or {}}
    more = {name: kept[name] for name in PASSED_ON if kept.get(name) and name not in taken}
    return {**(headers or {}), **more}


def remember(headers: Mapping[str, str]) -> None:
    """Keep the token that a reply gave to the app's request."""
    given = _request_headers()
    if given is not None and (token := headers.get(TOKEN)):
        given[TOKEN] = token


def _request_headers() -> MutableMapping[str, str] | None:
    app = _app() if _app is not None else None
    request = getattr(app, "current_request", None)
    return None if request is None else request.headers
