"""The URLs of requests, as fal gave them, in a few bytes: those of an endpoint differ in nothing but the id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

PLACE: Final = "{}"
"""Stands for the request's id in a kept URL. fal's own URLs have no braces; one that does is kept as it is."""

MOST: Final = 1_000
"""Kept forms. A fal that puts more than the id into each URL (a signature) would fill the table: then the URLs are kept
in the requests' own rows."""

URLS: Final = ", ".join(
    f"iif(d.id IS NULL, r.{name}, replace(d.{name}, '{PLACE}', r.request_id))"
    for name in ("status_url", "response_url", "cancel_url")
)
"""Columns: a request's three URLs, where `requests r` is joined by `JOIN_FORM`."""

JOIN_FORM: Final = "LEFT JOIN addresses d ON d.id = r.address"


class Addresses:
    """The forms that one writer has seen. After a rollback: `forget`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[tuple[str, ...], int] = {}

    def forget(self) -> None:
        """What was written last is not there."""
        self._ids.clear()

    def kept(self, request_id: str, urls: tuple[str, str, str]) -> tuple[int | None, str, str, str]:
        """What a request's row has: the number of its URLs' form and three empty texts, or None and the URLs."""
        if not any(urls) or any(PLACE in url for url in urls):
            return None, *urls
        form = tuple(url.replace(request_id, PLACE) for url in urls)
        number = self._ids.get(form)
        if number is None:
            number = self._number(form)
            if number is None:
                return None, *urls
            self._ids[form] = number
        return number, "", "", ""

    def _number(self, form: tuple[str, ...]) -> int | None:
        found = self._connection.execute(
            "SELECT id FROM addresses WHERE (status_url, response_url, cancel_url) = (?, ?, ?)", form
        ).fetchone()
        if found is not None:
            return int(found[0])
        (count,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM addresses").fetchone()
        if count >= MOST:
            return None
        made = self._connection.execute(
            "INSERT INTO addresses (status_url, response_url, cancel_url) VALUES (?, ?, ?)", form
        )
        return int(made.lastrowid or 0)
