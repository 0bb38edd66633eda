"""Who may read a file, and for how long: ACLs, links, expiry, an account's defaults, files that requests made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.uploading import LIFECYCLE, PREFERENCE, InParts, asked, bearer, initiate, post_file, upload

if TYPE_CHECKING:
    import httpx

    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess

SOON_S = 0.2
PICTURE = {"prompt": "a lighthouse", "seed": 3, "image_size": {"width": 64, "height": 64}}


def until_gone(fal: Fal, url: str, **headers: str) -> None:
    """Wait for the file to expire."""
    end = time.monotonic() + 10
    while fal.file(url, **headers).status_code != 404:
        assert time.monotonic() < end
        time.sleep(0.02)


def read(fal: Fal, url: str, account: str | None = None) -> int:
    return fal.file(url, **({} if account is None else bearer(fal, account))).status_code


@pytest.mark.parametrize("header", [LIFECYCLE, PREFERENCE])
def test_an_acl_lets_in_whom_it_names_and_always_the_owner(fal: Fal, header: str) -> None:
    url = upload(fal, **{header: asked(None, "forbid", friend="allow", foe="hide")})
    assert [read(fal, url, who) for who in (None, "me", "friend", "foe", "stranger")] == [403, 200, 200, 404, 403]


def test_a_hidden_file_looks_like_none(fal: Fal) -> None:
    url = upload(fal, **{LIFECYCLE: asked(None, "hide")})
    reply = fal.file(url)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not Found"})
    assert fal.public.head(url).status_code == 404
    assert read(fal, url, "me") == 200


def test_the_key_opens_nothing_and_is_a_leak(fal: Fal, sandbox: SandboxProcess) -> None:
    url = upload(fal, **{LIFECYCLE: asked(None, "forbid")})
    assert fal.get(url).status_code == 403
    assert sandbox.stats()["leaked_keys"] == 1
    read(fal, url, "me")
    assert sandbox.stats()["leaked_keys"] == 1


def test_a_file_expires_for_everybody_for_good(fal: Fal) -> None:
    url = upload(fal, **{LIFECYCLE: asked(SOON_S)})
    assert fal.file(url).headers["cache-control"] == "private, no-store"
    until_gone(fal, url)
    assert read(fal, url, "me") == 404
    assert fal.public.get(f"{fal.origin}/sandbox/uploads").json()["count"] == 0


@pytest.mark.parametrize("never", [0, None])
def test_no_seconds_means_for_ever(fal: Fal, never: float | None) -> None:
    upload(fal, **{LIFECYCLE: asked(never, "allow")})
    assert fal.public.get(f"{fal.origin}/sandbox/uploads").json()["files"][0]["expires_at"] is None


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"expiration_duration_seconds": -1}',
        '{"expiration_duration_seconds": true}',
        '{"expiration_duration_seconds": "60"}',
        '{"initial_acl": "allow"}',
        '{"initial_acl": {"default": null}}',
        '{"initial_acl": {"default": "maybe"}}',
        '{"initial_acl": {"default": "allow", "rules": [{"user": "x"}]}}',
        '{"initial_acl": {"default": "allow", "rules": {}}}',
    ],
)
def test_a_lifecycle_that_makes_no_sense_is_refused_at_an_upload(fal: Fal, text: str) -> None:
    reply = post_file(fal, **{LIFECYCLE: text})
    assert reply.status_code == 400
    assert "detail" in reply.json()


def test_parts_and_targets_have_a_lifecycle_too(fal: Fal) -> None:
    sent = InParts(fal, **{LIFECYCLE: asked(None, "forbid")})
    sent.complete([sent.part(1, b"x")])
    target = initiate(fal, **{PREFERENCE: asked(None, "hide")})
    fal.public.put(target["upload_url"], content=b"x")
    assert [read(fal, sent.url), read(fal, target["file_url"])] == [403, 404]
    assert [read(fal, sent.url, "me"), read(fal, target["file_url"], "me")] == [200, 200]


def test_a_signed_link_opens_its_file_alone(fal: Fal) -> None:
    one, other = (upload(fal, name, **{LIFECYCLE: asked(None, "hide")}) for name in (b"one", b"other"))
    reply = fal.public.post(f"{one}/sign", json={"duration": 60, "scope": ["read"]}, headers=bearer(fal))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert reply.text.startswith(f"{one}?identity=")
    assert fal.file(reply.text).content == b"one"
    identity = reply.text.partition("?")[2]
    assert fal.file(f"{other}?{identity}").status_code == 404
    assert fal.file(f"{one}?{identity}x").status_code == 404


def test_a_signed_link_ends(fal: Fal) -> None:
    url = upload(fal, **{LIFECYCLE: asked(None, "hide")})
    until_gone(fal, fal.public.post(f"{url}/sign", json={"duration": SOON_S}, headers=bearer(fal)).text)


def test_only_the_owner_signs_and_in_bounds(fal: Fal) -> None:
    hidden, restricted = (upload(fal, **{LIFECYCLE: asked(None, word)}) for word in ("hide", "forbid"))

    def sign(url: str, body: object, **headers: str) -> int:
        return fal.public.post(f"{url}/sign", json=body, headers=headers).status_code

    assert sign(hidden, {}) == 401
    assert sign(hidden, {}, **bearer(fal, "other")) == 404
    assert sign(restricted, {}, **bearer(fal, "other")) == 403
    mine = bearer(fal)
    assert sign(f"{fal.origin}/cdn/files/b/00000000/nothing.png", {}, **mine) == 404
    wrongs: list[object] = [{"duration": 0}, {"duration": 604_801}, {"duration": "x"}, {"scope": ["write"]}, []]
    for wrong in wrongs:
        assert sign(hidden, wrong, **mine) == 400
    assert sign(hidden, {}, **mine) == 200


class Platform:
    """The storage part of the platform API, as an account."""

    def __init__(self, fal: Fal, account: str = "me") -> None:
        self.fal = fal
        self.headers = {"Authorization": f"Key {account}:secret"}

    def call(self, method: str, name: str, url: str | None = None, body: object = None) -> httpx.Response:
        return self.fal.public.request(
            method,
            f"{self.fal.origin}/api/v1/storage/{name}",
            params={} if url is None else {"url": url},
            json=body,
            headers=self.headers,
        )


def test_the_platform_reads_and_replaces_an_acl(fal: Fal) -> None:
    url, platform = upload(fal), Platform(fal)
    assert platform.call("GET", "files/acl", url).json() == {"default": "allow", "rules": []}
    acl = {"default": "hide", "rules": [{"user": "friend", "decision": "allow"}]}
    assert platform.call("PUT", "files/acl", url, acl).json() == acl
    assert platform.call("GET", "files/acl", url).json() == acl
    assert [read(fal, url), read(fal, url, "friend")] == [404, 200]
    assert Platform(fal, "friend").call("GET", "files/acl", url).status_code == 404


def test_the_platform_signs(fal: Fal) -> None:
    url, platform = upload(fal, **{LIFECYCLE: asked(None, "forbid")}), Platform(fal)
    signed = platform.call("POST", "files/sign", url, {"expiration_seconds": 60}).json()["signed_url"]
    assert fal.file(signed).status_code == 200
    for wrong in (0, 604_801, 1.5, None, True):
        reply = platform.call("POST", "files/sign", url, {"expiration_seconds": wrong})
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "validation_error")


@pytest.mark.parametrize(
    ("url", "status"), [("", 400), ("ftp://x/cdn/a", 400), ("http://x/else", 400), ("http://x/cdn/files/b/0/a", 404)]
)
def test_the_platform_wants_the_url_of_a_file(fal: Fal, url: str, status: int) -> None:
    assert Platform(fal).call("GET", "files/acl", url).status_code == status
    assert Platform(fal).call("PUT", "files/acl", f"{upload(fal)}?a=b", {"default": "allow"}).status_code == 400


def test_an_account_has_defaults_for_its_files(fal: Fal) -> None:
    platform = Platform(fal)
    empty = {"expiration_duration_seconds": None, "initial_acl": None}
    assert platform.call("GET", "settings").json() == empty
    before = upload(fal)
    wanted: dict[str, Any] = {"expiration_duration_seconds": 3600, "initial_acl": {"default": "forbid", "rules": []}}
    assert platform.call("PUT", "settings", body=wanted).json() == wanted
    assert platform.call("GET", "settings").json() == wanted
    assert b'"expiration_duration_seconds":3600,' in platform.call("GET", "settings").content
    after, own = upload(fal), upload(fal, **{LIFECYCLE: asked(None, "allow")})
    made = fal.run(PICTURE)["images"][0]["url"]
    assert [read(fal, url) for url in (before, after, own, made)] == [200, 403, 200, 403]
    assert platform.call("PUT", "settings", body={}).json() == empty
    assert platform.call("PUT", "settings", body={"initial_acl": 1}).status_code == 400
    assert [read(fal, url) for url in (after, upload(fal), made)] == [403, 200, 403]
    assert Platform(fal, "other").call("GET", "settings").json() == empty


def test_what_a_submit_wants_holds_for_the_files_it_makes(fal: Fal) -> None:
    url = fal.run(PICTURE, headers={PREFERENCE: asked(None, "forbid", friend="allow")})["images"][0]["url"]
    assert [read(fal, url, who) for who in (None, "me", "friend")] == [403, 200, 200]
    signed = fal.public.post(f"{url}/sign", headers=bearer(fal))
    assert fal.file(signed.text).status_code == 200
    platform = Platform(fal)
    assert platform.call("GET", "files/acl", url).json()["default"] == "forbid"
    platform.call("PUT", "files/acl", url, {"default": "allow", "rules": []})
    assert read(fal, url) == 200


def test_files_that_a_request_made_expire_too(fal: Fal) -> None:
    url = fal.run(PICTURE, headers={PREFERENCE: asked(SOON_S)})["images"][0]["url"]
    until_gone(fal, url)
    assert read(fal, url, "me") == 404
    assert Platform(fal).call("GET", "files/acl", url).status_code == 404


def test_an_unusable_lifecycle_of_a_submit_is_ignored(fal: Fal) -> None:
    url = fal.run(PICTURE, headers={PREFERENCE: "nonsense"})["images"][0]["url"]
    assert read(fal, url) == 200
