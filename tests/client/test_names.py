"""A script moves over by its import: every public name of fal_client, with its keywords, is in falbatch.client."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from typing import Any

import fal_client
import pytest

import falbatch
from falbatch import client as ours

METHODS = [
    (name, method)
    for name in ("AsyncClient", "SyncClient", "AsyncRequestHandle", "SyncRequestHandle")
    for method in vars(getattr(fal_client, name))
    if not method.startswith("_") and callable(getattr(getattr(fal_client, name), method))
]
OF_THE_BATCH = {"run", "status", "cancel"}
"""Names that falbatch itself has for batches."""


def public_functions() -> list[str]:
    return [name for name in dir(fal_client) if inspect.ismethod(getattr(fal_client, name))]


def keywords(function: Any) -> dict[str, tuple[Any, Any]]:
    """Name → (kind, has a default) of each parameter."""
    return {
        name: (one.kind, one.default is not inspect.Parameter.empty)
        for name, one in inspect.signature(function).parameters.items()
    }


@pytest.mark.parametrize("name", sorted({*fal_client.__all__, *public_functions()}))
def test_every_public_name_is_there(name: str) -> None:
    assert hasattr(ours, name)
    if not name.startswith("__") and name not in {"version_tuple", "ObjectExpiration", "StorageACLDecision"}:
        assert callable(getattr(ours, name))


@pytest.mark.parametrize(("owner", "method"), METHODS)
def test_every_method_takes_the_same_words(owner: str, method: str) -> None:
    theirs = keywords(getattr(getattr(fal_client, owner), method))
    mine = keywords(getattr(getattr(ours, owner), method))
    assert theirs.items() <= mine.items()
    order = [name for name in mine if name in theirs]
    assert order == list(theirs)
    extra = set(mine) - set(theirs)
    assert all(mine[name][0] in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD} for name in extra)


@pytest.mark.parametrize("owner", ["AsyncClient", "SyncClient", "FalClientHTTPError", "FalClientTimeoutError"])
def test_every_constructor_takes_the_same_words(owner: str) -> None:
    theirs, mine = (list(inspect.signature(getattr(one, owner)).parameters) for one in (fal_client, ours))
    assert mine[: len(theirs)] == theirs


@pytest.mark.parametrize(
    "name", ["Queued", "InProgress", "Completed", "StorageSettings", "StorageACL", "StorageACLRule"]
)
def test_values_have_the_same_fields(name: str) -> None:
    theirs, mine = ([field.name for field in dataclasses.fields(getattr(one, name))] for one in (fal_client, ours))
    assert mine == theirs


@pytest.mark.parametrize("name", ["FalClientHTTPError", "FalClientTimeoutError"])
def test_errors_are_caught_by_the_same_classes(name: str) -> None:
    mine = getattr(ours, name)
    assert issubclass(mine, ours.FalClientError)
    assert issubclass(mine, falbatch.FalbatchError)
    assert issubclass(mine, TimeoutError) == issubclass(getattr(fal_client, name), TimeoutError)
    assert issubclass(ours.RealtimeError, RuntimeError)


@pytest.mark.parametrize("name", [name for name in public_functions() if name not in OF_THE_BATCH])
def test_names_without_conflict_are_falbatchs_own_too(name: str) -> None:
    assert getattr(falbatch, name) == getattr(ours, name)
    assert name in falbatch.__all__


def test_importing_falbatch_costs_nothing() -> None:
    code = "import sys, falbatch; sys.exit('httpx' in sys.modules or 'aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_encoding_is_theirs(tmp_path: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG")
    assert ours.encode("text", "text/plain") == fal_client.encode("text", "text/plain")
    assert ours.encode_file(path) == fal_client.encode_file(path)
