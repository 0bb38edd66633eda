"""YAML as people write it: `on` is a word. Importing this loads yaml."""

from __future__ import annotations

import re

import yaml

_BOOLEAN = "tag:yaml.org,2002:bool"


class PlainLoader(yaml.SafeLoader):
    """A SafeLoader for which only true and false are booleans: YAML 1.1 would read the key `on` as True."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(_BOOLEAN, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
