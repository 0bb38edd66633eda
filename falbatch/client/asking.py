"""What may be asked for with a call beside fal_client's own keywords, and the headers made of all of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from falbatch.client.context import passed_on
from falbatch.fal.options import SubmitOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from falbatch.fal.lifecycle import StorageSettings
    from falbatch.fal.storage import Repository

Priority = Literal["normal", "low"]
UploadRepositoryId = Literal["fal_v3", "cdn", "fal"]
"""`cdn` is an old name of `fal_v3`."""


class Extras(TypedDict, total=False):
    """Keywords of every call that runs a model; fal_client has none of them."""

    tags: Mapping[str, str]
    """Billing labels (fal-protocol §3.1)."""
    expires_in: str | float
    """Life of the produced files: seconds, or `1h`, `7d`, `never` …"""
    object_lifecycle: StorageSettings
    """Life and readers of the produced files, in the words of uploads; in place of `expires_in`."""
    store_io: bool
    """False: fal keeps neither input nor output, and a lost request cannot be found again."""
    fallback: bool
    """False: never rerouted to an equivalent model."""


class SubmitExtras(Extras, total=False):
    """Keywords of submits alone."""

    max_queue_length: int
    """fal refuses (429, raised at once) when more requests wait at the endpoint."""
    retry: bool | Mapping[str, int]
    """False: fal repeats no failed attempt; a mapping: how many more, by condition."""


def options_of(
    *,
    headers: Mapping[str, str] | None = None,
    hint: str | None = None,
    priority: Priority | None = None,
    start_timeout: float | None = None,
    webhook_url: str | None = None,
    extras: SubmitExtras | Extras | None = None,
) -> SubmitOptions:
    """The options of a call. ValueError for what fal would silently ignore, TypeError for an unknown keyword."""
    more: dict[str, Any] = dict(extras or {})
    if unknown := more.keys() - _WORDS:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}; a call takes {', '.join(sorted(_WORDS))}")
    lifecycle = more.pop("object_lifecycle", None)
    if lifecycle is not None:
        if more.get("expires_in") is not None:
            raise ValueError("expires_in and object_lifecycle say the same; give one of them")
        more["expires_in"], more["initial_acl"] = lifecycle.expires_in, lifecycle.initial_acl
    return SubmitOptions(
        priority=priority,
        start_timeout_s=start_timeout,
        hint=hint,
        webhook_url=webhook_url,
        headers=passed_on(headers),
        **{name: value for name, value in more.items() if value is not None},
    )


_WORDS: Final = frozenset(SubmitExtras.__annotations__ | Extras.__annotations__)


def seconds_of(what: str, given: float | None, unsaid: float) -> float:
    """`given`, or `unsaid` without it. ValueError, before anything is sent, for what no call could be answered in."""
    seconds = unsaid if given is None else float(given)
    if not seconds > 0:  # NaN too
        raise ValueError(f"{what} {given!r} is no time that a call could be answered in; give seconds")
    return seconds


def repositories_of(
    repository: UploadRepositoryId | None,
    fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None,
) -> tuple[Repository, tuple[Repository, ...]]:
    """The repository to upload to, and those to try after it: none, unless they are named."""
    others = [fallback_repository] if isinstance(fallback_repository, str) else list(fallback_repository or ())
    wanted: list[Repository] = []
    for name in (repository or "fal_v3", *others):
        if name == "cdn":
            warnings.warn("the upload repository cdn is an old name of fal_v3", DeprecationWarning, stacklevel=2)
        known: Repository = "fal_v3" if name == "cdn" else name
        if known not in {"fal_v3", "fal"}:
            raise ValueError(f"{known!r} is no repository for uploads; give fal_v3 or fal")
        if known not in wanted:
            wanted.append(known)
    return wanted[0], tuple(wanted[1:])
