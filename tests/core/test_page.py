"""Pages: whatever is in a text or a name stays a text or a name."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.page import MARK, Card, Figure, Page, figure_of, html_of, policy
from tests.pages import page_of

NASTY = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{ 7 * 7 }}{% raw %}<!--"


def page_with(card: Card) -> str:
    return html_of(Page("title", [("term", "text")], [card]))


def test_a_page_begins_with_our_mark_and_has_its_policy() -> None:
    html = page_with(Card("one"))
    assert html.startswith(MARK)
    page = page_of(html)
    assert page.policy == policy()
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    assert "prefers-color-scheme: dark" in style
    assert "default-src 'none'" in policy()
    assert "unsafe" not in policy()
    assert "script-src" not in policy()


def test_every_text_is_escaped() -> None:
    figures = [Figure(NASTY, kind) for kind in ("image", "drawing", "video", "audio", "file", "name", "missing")]
    card = Card(NASTY, figures, text=NASTY, badges=(NASTY,), facts=(NASTY,), troubles=(NASTY,), is_bad=True)
    page = page_of(html_of(Page(NASTY, [(NASTY, NASTY)], [card])))
    assert not page.of("script")
    assert [given for _, given in page.tags if "onerror" in given] == []
    assert len(page.of("img")) == 2
    assert all(unquote(given["src"]) == NASTY for given in page.of("img") + page.of("video") + page.of("audio"))
    assert page.text.count(NASTY) == 12


@given(st.text(), st.text(min_size=1))
def test_any_text_and_any_name_come_back_as_they_were(text: str, path: str) -> None:
    page = page_of(page_with(Card("title", [Figure(path, "image")], facts=(text,))))
    (image,) = page.of("img")
    assert unquote(image["src"], errors="surrogatepass") == path
    assert ":" not in image["src"]
    ours = "html head meta title style body h1 dl dt dd main article a img h2 p"
    assert {tag for tag, _ in page.tags} == set(ours.split())


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("image/png", "image"),
        ("image/jpeg; charset=binary", "image"),
        ("image/svg+xml", "drawing"),
        ("video/mp4", "video"),
        ("audio/wav", "audio"),
        ("application/json", "file"),
        ("text/plain", "file"),
        ("text/html", "name"),
        ("application/xhtml+xml", "name"),
        ("", "file"),
    ],
)
def test_files_are_shown_by_their_type_and_what_may_run_is_not_linked(content_type: str, kind: str) -> None:
    assert figure_of("a/b.bin", content_type).kind == kind


def test_pictures_are_loaded_when_they_are_looked_at() -> None:
    (image,) = page_of(page_with(Card("one", [Figure("a.png", "image")]))).of("img")
    assert image["loading"] == "lazy"
