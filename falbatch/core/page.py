"""A page of pictures for a browser: results as cards, each with what is to be known of it. Pure: text in, HTML out.

The page stands alone but for the results themselves, to which it refers by relative path: page and folder can be moved
together. Every text is escaped by the template engine; no script runs, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import jinja2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MARK: Final = "<!doctype html><!-- made by falbatch -->"
"""How each page begins: a file that does not is somebody else's and is not written over."""

ACTIVE_TYPES: Final = ("html", "xml", "svg", "javascript", "pdf")
"""Parts of content types that a browser may run something of: named, and not linked."""

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1b1f; --dim: #5c5f66; --paper: #f6f6f4; --card: #ffffff; --line: #dcdcd8;
  --bad: #a3212c; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --dim: #a2a5ad; --paper: #17181a; --card: #212327;
  --line: #373a40; --bad: #ff9a94; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem clamp(1rem, 4vw, 3rem); background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0 0 2rem; }
dt { color: var(--dim); }
dd { margin: 0; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .75rem;
  overflow-wrap: anywhere; }
article.bad { border-color: var(--bad); }
h2 { font-size: 1rem; margin: .5rem 0 .25rem; }
p { margin: .25rem 0; }
.dim { color: var(--dim); font-size: .85rem; }
.bad h2, .why { color: var(--bad); }
.badge { display: inline-block; border: 1px solid var(--bad); border-radius: 3px; color: var(--bad);
  font-size: .85rem; margin: .25rem .25rem 0 0; padding: 0 .4rem; }
img, video { display: block; width: 100%; height: auto; border-radius: 3px; background: var(--line);
  margin-bottom: .5rem; }
audio { width: 100%; }
pre { white-space: pre-wrap; max-height: 16rem; overflow: auto; margin: 0 0 .5rem;
  font: .85rem/1.4 ui-monospace, monospace; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
"""

_PAGE: Final = """{{ mark | safe }}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{{ page.title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<h1>{{ page.title }}</h1>
<dl>
{% for term, text in page.facts %}
<dt>{{ term }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl>
<main>
{% for card in page.cards %}
<article{% if card.is_bad %} class="bad"{% endif %}>
{% for figure in card.figures %}
{% if figure.kind == "image" %}
<a href="{{ figure.url }}"><img src="{{ figure.url }}" alt="{{ card.title }}" loading="lazy" decoding="async"></a>
{% elif figure.kind == "drawing" %}
<img src="{{ figure.url }}" alt="{{ card.title }}" loading="lazy" decoding="async">
{% elif figure.kind == "video" %}
<video src="{{ figure.url }}" controls preload="metadata"></video>
{% elif figure.kind == "audio" %}
<audio src="{{ figure.url }}" controls preload="none"></audio>
{% elif figure.kind == "file" %}
<p><a href="{{ figure.url }}">{{ figure.path }}</a></p>
{% else %}
<p>{{ figure.path }}{% if figure.kind == "missing" %} (no longer in the folder){% endif %}</p>
{% endif %}
{% endfor %}
{% if card.text %}
<pre>{{ card.text }}</pre>
{% endif %}
<h2>{{ card.title }}</h2>
{% for badge in card.badges %}
<p class="badge">{{ badge }}</p>
{% endfor %}
{% for why in card.troubles %}
<p class="why">{{ why }}</p>
{% endfor %}
{% for fact in card.facts %}
<p class="dim">{{ fact }}</p>
{% endfor %}
</article>
{% endfor %}
</main>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One file of a card."""

    path: str
    """Relative to the page, POSIX slashes."""
    kind: str
    """`image`, `drawing` (shown, and not linked), `video`, `audio`, `file` (linked), `name` (only named), `missing`."""

    @property
    def url(self) -> str:
        """Its path as a relative URL, whatever is in its name."""
        return quote(self.path, errors="surrogatepass")


def figure_of(path: str, content_type: str) -> Figure:
    """How a file is shown, by its type."""
    base = content_type.partition(";")[0].strip().lower()
    if any(part in base for part in ACTIVE_TYPES):
        # An image element runs nothing of a picture that holds a script; a link to it would.
        return Figure(path, "drawing" if base.startswith("image/") else "name")
    kind = base.partition("/")[0]
    return Figure(path, kind if kind in {"image", "video", "audio"} else "file")


@dataclass(frozen=True, slots=True)
class Card:
    """One result, or what there is in its place."""

    title: str
    figures: Sequence[Figure] = ()
    text: str = ""
    """A result that is text."""
    badges: Sequence[str] = ()
    """Words that set it apart at a glance."""
    facts: Sequence[str] = ()
    troubles: Sequence[str] = ()
    """Why there is no result, and what to do about it."""
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """All that is on a page."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Terms and texts on top."""
    cards: Iterable[Card]


def html_of(page: Page) -> str:
    """The page as HTML. Lone surrogates in it have to be replaced by whoever encodes it."""
    return _template().render(page=page, mark=MARK, style=_STYLE, policy=policy())


def policy() -> str:
    """What a browser may do for the page (Content Security Policy, level 3): show what lies beside it, in our style.
    `file:` stands beside 'self' for browsers that take each file for an origin of its own."""
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src 'self' file:; media-src 'self' file:; style-src 'sha256-{style}';"
        " base-uri 'none'; form-action 'none'"
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_PAGE)
