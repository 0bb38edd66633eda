"""A page as a browser's parser reads it: tags with their attributes, and the text between them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from pathlib import Path


class ReadPage(HTMLParser):
    """What is in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._texts: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self._texts.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [given for name, given in self.tags if name == tag]

    @property
    def text(self) -> str:
        """All that is to be read, references resolved."""
        return "\n".join(self._texts)

    @property
    def images(self) -> list[str]:
        """Paths of the pictures."""
        return [unquote(image["src"]) for image in self.of("img")]

    @property
    def policy(self) -> str:
        """Its Content-Security-Policy."""
        (found,) = [one["content"] for one in self.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
        return found


def page_of(html: str) -> ReadPage:
    """A page, read."""
    page = ReadPage()
    page.feed(html)
    page.close()
    return page


def page_in(place: Path) -> ReadPage:
    """A page on disk, every file of which is there."""
    page = page_of(place.read_text(encoding="utf-8"))
    for tag, name in (("img", "src"), ("video", "src"), ("audio", "src"), ("a", "href")):
        for given in page.of(tag):
            assert (place.parent / unquote(given[name])).is_file(), given
    return page
