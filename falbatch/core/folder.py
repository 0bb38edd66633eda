"""Where a manifest's results go. It can be read by itself: who asks how a batch stands need not check its manifest."""

from __future__ import annotations

from pathlib import PurePath

from falbatch.core.naming import NameProblem, safe_name
from falbatch.core.yamltext import load


def default_name(source: str) -> str:
    """The name of a batch whose manifest gives none: that of its file."""
    made = safe_name(PurePath(source).stem.replace("\\", "_"))
    return "batch" if isinstance(made, NameProblem) else made


def default_dir(name: str) -> str:
    """The output folder of the batch `name` where the manifest gives none, relative to the manifest's."""
    return f"outputs/{name}"


def is_plain_dir(text: str) -> bool:
    """True for what can be a folder of all items: not empty, no template."""
    return bool(text.strip()) and not any(part in text for part in ("\0", "{{", "{%"))


def read_dir(text: bytes, *, source: str) -> str | None:
    """The output folder that the bytes of a YAML file name, relative to the manifest's; nothing else is checked.

    None where that is said in a way that only the whole check can explain. Raises `ManifestError` for what is no YAML.
    """
    data, _marks = load(text, source=source)
    name, output = data.get("name"), data.get("output")
    folder = output.get("dir") if isinstance(output, dict) else output
    if folder is None and name is None:
        return default_dir(default_name(source))
    if folder is None:
        return default_dir(name) if isinstance(name, str) and "/" not in name and safe_name(name) == name else None
    return folder if isinstance(folder, str) and isinstance(output, dict) and is_plain_dir(folder) else None
