"""Where results go, read from a manifest that nobody checks: the same folder as the whole check finds, or none."""

from __future__ import annotations

import pytest

from falbatch.core.folder import read_dir
from falbatch.core.manifest import parse_manifest
from falbatch.errors import ManifestError

REST = "endpoint: fal-ai/flux/dev\ninput: {}\n"


@pytest.mark.parametrize(
    ("head", "source", "folder"),
    [
        ("", "jobs/kites.yaml", "outputs/kites"),
        ("", "jobs/..yaml", None),
        ("", "a\\b.yaml", None),
        ("", "con.yaml", None),
        ("name: small\n", "m.yaml", "outputs/small"),
        ("output:\n", "m.yaml", "outputs/m"),
        ("output: {sidecar: true}\n", "m.yaml", "outputs/m"),
        ("output: {dir: out}\n", "m.yaml", "out"),
        ("output: {dir: /somewhere/else}\nname: small\n", "m.yaml", "/somewhere/else"),
        ("output: {dir: null}\n", "m.yaml", None),
    ],
)
def test_it_is_the_folder_of_the_whole_check(head: str, source: str, folder: str | None) -> None:
    text = (head + REST).encode()
    found = read_dir(text, source=source)
    assert folder is None or found == folder
    try:
        assert found == parse_manifest(text, source=source).output.dir
    except ManifestError:
        assert "null" in head, "only what is wrong may differ"


@pytest.mark.parametrize(
    "head",
    ["output: out\n", "output: {dir: 7}\n", 'output: {dir: " "}\n', 'output: {dir: "{{ row.a }}"}\n', "name: a/b\n"],
)
def test_what_only_the_whole_check_can_explain_is_left_to_it(head: str) -> None:
    text = (head + REST).encode()
    assert read_dir(text, source="m.yaml") is None
    with pytest.raises(ManifestError):
        parse_manifest(text, source="m.yaml")


def test_what_is_no_yaml_is_said() -> None:
    with pytest.raises(ManifestError):
        read_dir(b"output: {dir: [", source="m.yaml")


def test_mistakes_elsewhere_are_nobodys_business_here() -> None:
    assert read_dir(b"nonsense: 1\noutput: {dir: out}\n", source="m.yaml") == "out"
