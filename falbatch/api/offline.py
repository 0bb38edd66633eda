"""What falbatch knows of fal without asking it: a plan loads no HTTP library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from falbatch.adapters.cache import Cache, open_cache
from falbatch.core.fileinputs import UploadTerms
from falbatch.errors import FalbatchError, UsageError
from falbatch.fal.auth import find_credentials
from falbatch.fal.endpoint import EndpointId
from falbatch.fal.hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import Mapping


def target_kind(env: Mapping[str, str], *, sandbox: bool) -> str:
    """What the state file remembers of the fal that `env` points at."""
    if sandbox:
        return "sandbox"
    return "loopback" if Hosts.resolve(env).loopback else "fal"


def user_cache(env: Mapping[str, str], *, sandbox: bool) -> Cache:
    """What this user's programs heard from the fal that `env` points at. Nothing is kept of the built-in sandbox."""
    return Cache(None) if sandbox else open_cache(env, Hosts.resolve(env).queue)


def account_of(env: Mapping[str, str], key_file: Path | None, *, sandbox: bool) -> str:
    """Whose prices fal would name in this environment (`Credentials.account`); "" without a key."""
    if sandbox:
        return ""
    try:
        return find_credentials(env, key_file=key_file, home=Path.home()).account
    except (FalbatchError, RuntimeError):  # said where one is needed
        return ""


def check_endpoint(text: str) -> str | None:
    """What is wrong with an endpoint id, None when nothing is."""
    try:
        EndpointId.parse(text)
    except ValueError as error:
        return str(error)
    return None


def terms_of(hosts: Hosts, expires_in: str | int | None) -> UploadTerms:
    """Where uploads go, and for how long."""
    return UploadTerms(hosts.cdn or hosts.rest, expires_in)


def planned_terms(env: Mapping[str, str], expires_in: str | int | None) -> str | None:
    """The terms of a run in this environment, for a plan; None where nothing can be said."""
    try:
        return terms_of(Hosts.resolve(env), expires_in).text
    except UsageError:
        return None
