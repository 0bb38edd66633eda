"""Tokens: who gets one, what it is good for, and that it ends (fal-protocol §5.3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from falbatch.sandbox.endpoints import EndpointId
from falbatch.sandbox.tokens import check, mint
from tests.sandbox.direct import KITE, QUICK

if TYPE_CHECKING:
    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess

FLUX = EndpointId("fal-ai/flux/dev", "fal-ai/flux")


def ask(fal: Fal, body: object, tail: str = "") -> httpx.Response:
    return fal.http.post(f"{fal.origin}/rest/tokens/{tail}", json=body)


@pytest.mark.parametrize(
    ("app", "is_allowed"),
    [
        ("flux", True),
        ("fal-ai/flux", True),
        ("fal-ai/flux/dev", True),
        ("flu", False),
        ("dev", False),
        ("fal-ai", True),
        ("fal-ai/flux/de", False),
        ("fal-ai/flux/dev/x", False),
    ],
)
def test_an_app_is_named_by_alias_or_by_an_id_above_it(app: str, is_allowed: bool) -> None:
    grant = check(1, mint(1, "me", ["other", app], 10.0), 9.0)
    assert grant is not None
    assert (grant.account, grant.allows(FLUX)) == ("me", is_allowed)


@pytest.mark.parametrize("changed", ["{}x", "x{}", "{}.x", "", "ü.."])
def test_a_changed_token_is_none(changed: str) -> None:
    assert check(1, changed.format(mint(1, "me", ["flux"], 10.0)), 9.0) is None


def test_a_token_ends_and_belongs_to_its_sandbox() -> None:
    token = mint(1, "me", ["flux"], 10.0)
    assert check(1, token, 10.0) is None
    assert check(2, token, 9.0) is None


def test_both_shapes_of_the_call_give_a_token_that_works(fal: Fal, sandbox: SandboxProcess) -> None:
    bare = ask(fal, {"allowed_apps": ["flux"], "token_expiration": 120}).json()
    wrapped = ask(fal, {"allowed_apps": [QUICK], "duration": 120}, "realtime").json()["token"]
    for token in (bare, wrapped):
        reply = httpx.post(f"{fal.origin}/run/{QUICK}", params={"fal_jwt_token": token}, json=KITE)
        assert reply.status_code == 200
        recorded = sandbox.request(reply.headers["x-fal-request-id"])
        assert (recorded["account"], recorded["query"]) == ("me", {})
    assert sandbox.ledger()["count"] == 2


def test_a_token_of_another_app_or_a_stale_one_is_401(fal: Fal) -> None:
    other = ask(fal, {"allowed_apps": ["other"]}).json()
    stale = ask(fal, {"allowed_apps": ["flux"], "token_expiration": 0.001}).json()
    for token in (other, stale, "nonsense"):
        reply = httpx.post(f"{fal.origin}/run/{QUICK}", params={"fal_jwt_token": token}, json=KITE)
        assert reply.status_code == 401
    good = ask(fal, {"allowed_apps": ["flux"]}).json()
    bad_key = {"Authorization": "Key x"}
    reply = httpx.post(f"{fal.origin}/run/{QUICK}", params={"fal_jwt_token": good}, json=KITE, headers=bad_key)
    assert reply.status_code == 401, "a key that comes along decides"


def test_a_status_stream_takes_a_token_and_nothing_else_of_the_queue_does(fal: Fal) -> None:
    request = fal.submit(KITE, QUICK)
    token = {"fal_jwt_token": ask(fal, {"allowed_apps": ["flux"]}).json()}
    reply = httpx.get(request["status_url"] + "/stream", params=token)
    last = json.loads(reply.text.strip().rpartition("data: ")[2])
    assert last["status"] == "COMPLETED"
    assert httpx.get(request["status_url"], params=token).status_code == 401
    assert httpx.get(request["status_url"] + "/stream", params={"fal_jwt_token": "x"}).status_code == 401


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        ([], "dict_type"),
        ({}, "missing"),
        ({"allowed_apps": "flux"}, "list_type"),
        ({"allowed_apps": []}, "list_type"),
        ({"allowed_apps": [1]}, "list_type"),
        ({"allowed_apps": ["flux"], "token_expiration": 0}, "greater_than"),
        ({"allowed_apps": ["flux"], "token_expiration": "soon"}, "greater_than"),
    ],
)
def test_a_bad_wish_is_422(fal: Fal, body: object, type_: str) -> None:
    reply = ask(fal, body)
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, type_)


def test_strangers_other_methods_and_other_paths_get_nothing(fal: Fal) -> None:
    assert httpx.post(f"{fal.origin}/rest/tokens/", json={"allowed_apps": ["flux"]}).status_code == 401
    assert fal.get(f"{fal.origin}/rest/tokens/").status_code == 405
    assert ask(fal, {}, "other").status_code == 404
