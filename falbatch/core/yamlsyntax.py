"""What a YAML parser's complaint means in plain words, and what to do about it."""

from __future__ import annotations

import re
from typing import Final

QUOTE_TEMPLATE: Final = 'put quotes around templates: key: "{{ … }}"'

_UNQUOTED_TEMPLATE: Final = re.compile(r"(?:: |- |^)\s*\{[{%]")

_PLAIN_WORDS: Final = (
    ("single document", "there is more than one document", "keep what stands before the second ---"),
    (
        "mapping values are not allowed",
        'a ":" stands where no key can be',
        'put quotes around text with ": " in it, and check the indentation',
    ),
    ("undefined alias", "this alias has no anchor", "write &name before the value that *name means"),
    ("duplicate anchor", "this anchor was set before", "give each anchor a name of its own"),
    ("cannot start any token", "text cannot begin with this character", "put quotes around it"),
    ("unexpected end of stream", "a quote is opened and never closed", ""),
    ("expected ',' or", 'a "," or a closing bracket is missing', ""),
    ("could not find expected ':'", 'a key without its ":"', ""),
    (
        "unknown escape character",
        "double quotes do not know this escape",
        "write \\\\ for a backslash, or use single quotes",
    ),
    ("expected key", "this does not fit what stands before it", "check indentation and quotes"),
    ("'-' indicator", 'a "-" was expected here', "check the indentation"),
)
"""Part of what libyaml says, what it means, what to do."""


def explain(said: str, line: str, column: int) -> tuple[str, str]:
    """What is wrong and what to do, for the parser's words `said` about `column` (1-based) of `line`."""
    if line[max(column - 1, 0) : column] == "\t":
        return "a tab stands where only spaces may", "indent with spaces"
    what, hint = said, ""
    for words, plain, advice in _PLAIN_WORDS:
        if words in said:
            what, hint = plain, advice
            break
    return what, QUOTE_TEMPLATE if _UNQUOTED_TEMPLATE.search(line) else hint
