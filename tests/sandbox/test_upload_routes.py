"""Uploading: at once, in parts, to a target; each file arrives once and whole, or not at all."""

from __future__ import annotations

import hashlib
import random
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.sandbox.uploading import InParts, bearer, initiate, post_file, token_reply, upload

if TYPE_CHECKING:
    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess


def uploads(fal: Fal) -> dict[str, Any]:
    page: dict[str, Any] = fal.public.get(f"{fal.origin}/sandbox/uploads").json()
    return page


def test_a_token_says_where_to_upload_and_until_when(fal: Fal) -> None:
    page = token_reply(fal).json()
    assert page["base_url"] == f"{fal.origin}/cdn"
    assert page["expires_at"].endswith("+00:00")
    lives = datetime.fromisoformat(page["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < lives <= timedelta(days=30)
    short = token_reply(fal, body={"expiration_seconds": 90}).json()
    assert datetime.fromisoformat(short["expires_at"]) < datetime.now(UTC) + timedelta(seconds=91)


@pytest.mark.parametrize("seconds", [0, -1, True, "60", 30 * 86_400 + 1])
def test_a_token_life_out_of_bounds_is_refused(fal: Fal, seconds: object) -> None:
    assert token_reply(fal, body={"expiration_seconds": seconds}).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "auth/token", 400),
        ("POST", "auth/token?storage_type=gcs", 400),
        ("GET", "auth/token?storage_type=fal-cdn-v3", 405),
        ("POST", "upload/initiate?storage_type=s3", 400),
        ("POST", "upload/else?storage_type=gcs", 404),
    ],
)
def test_calls_that_the_storage_does_not_know_are_refused(fal: Fal, method: str, path: str, status: int) -> None:
    assert fal.http.request(method, f"{fal.origin}/rest/storage/{path}", json={}).status_code == status


def test_the_rest_host_wants_a_key_and_knows_its_paths(fal: Fal) -> None:
    assert fal.public.post(f"{fal.origin}/rest/storage/auth/token?storage_type=fal-cdn-v3").status_code == 401
    assert fal.public.get(f"{fal.origin}/rest/nothing/here").status_code == 404


def test_a_file_posted_at_once_is_served_as_it_came(fal: Fal) -> None:
    data = random.Random(1).randbytes(300_000)
    url = upload(fal, data, **{"Content-Type": "image/png", "X-Fal-File-Name": "my photo.png"})
    assert re.fullmatch(re.escape(fal.origin) + r"/cdn/files/b/[0-9a-f]{8}/[\w-]+_my_photo\.png", url)
    reply = fal.file(url)
    assert (reply.status_code, reply.content, reply.headers["content-type"]) == (200, data, "image/png")
    head = fal.public.head(url)
    assert (head.content, head.headers["content-length"], head.headers["etag"]) == (
        b"",
        str(len(data)),
        reply.headers["etag"],
    )
    page = uploads(fal)
    assert (page["count"], page["bytes"], page["unfinished"]) == (1, len(data), 0)
    entry = page["files"][0]
    assert (entry["url"], entry["size"], entry["parts"], entry["sent"]) == (url, len(data), 1, 1)
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert entry["content_type"] == "image/png"


def test_an_empty_file_is_a_file(fal: Fal) -> None:
    reply = fal.file(upload(fal, b""))
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(
    ("wanted", "status", "first", "end"),
    [
        ("bytes=10-19", 206, 10, 20),
        ("bytes=-5", 206, 95, 100),
        ("bytes=90-", 206, 90, 100),
        ("bytes=100-", 416, 0, 0),
        ("bytes=1-2,5-6", 200, 0, 100),
        ("bytes=" + "9" * 5000 + "-", 200, 0, 100),
    ],
)
def test_ranges_of_an_uploaded_file(fal: Fal, wanted: str, status: int, first: int, end: int) -> None:
    data = random.Random(2).randbytes(100)
    reply = fal.file(upload(fal, data), Range=wanted)
    assert (reply.status_code, reply.content) == (status, data[first:end])


def test_a_big_file_is_sent_piece_by_piece_with_its_length(fal: Fal) -> None:
    data = random.Random(3).randbytes(18_000_000)
    url = upload(fal, data)
    whole = fal.file(url)
    assert (whole.headers["content-length"], whole.content == data) == (str(len(data)), True)
    part = fal.file(url, Range="bytes=100-17000099")
    assert (part.status_code, part.content == data[100:17_000_100]) == (206, True)


def test_the_bytes_come_in_only_with_a_cdn_token(fal: Fal, sandbox: SandboxProcess) -> None:
    assert post_file(fal, Authorization="Bearer nonsense").status_code == 401
    assert sandbox.stats()["leaked_keys"] == 1
    assert post_file(fal, Authorization="Key me:secret").status_code == 401
    assert sandbox.stats()["leaked_keys"] == 2
    assert uploads(fal)["count"] == 0


def test_a_token_that_is_over_is_refused_and_no_leak(fal: Fal, sandbox: SandboxProcess) -> None:
    page = token_reply(fal, body={"expiration_seconds": 0.001}).json()
    assert post_file(fal, Authorization=f"Bearer {page['token']}").status_code == 401
    assert sandbox.stats()["leaked_keys"] == 0


def test_parts_make_a_file_in_the_order_of_their_numbers(fal: Fal) -> None:
    sent = InParts(fal)
    pieces = [random.Random(number).randbytes(40_000) for number in (1, 2, 3)]
    listed = [sent.part(number, pieces[number - 1]) for number in (3, 1, 2)]
    assert fal.file(sent.url).status_code == 404
    assert uploads(fal)["unfinished"] == 1
    listed.sort(key=lambda part: part["partNumber"])
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', part["etag"]) for part in listed)
    assert sent.complete(listed).status_code == 200
    reply = fal.file(sent.url)
    assert (reply.content, reply.headers["content-type"]) == (b"".join(pieces), "video/mp4")
    assert uploads(fal)["files"][0] | {"parts": 3, "sent": 3} == uploads(fal)["files"][0]
    assert sent.complete(listed).status_code == 200  # the first answer may have got lost
    assert sent.complete(listed[:1]).status_code == 400
    assert sent.put(1, b"late").status_code == 400
    assert uploads(fal)["unfinished"] == 0


def test_a_part_sent_again_takes_the_place_of_the_first(fal: Fal) -> None:
    sent = InParts(fal)
    first = sent.part(1, b"wrong")
    again = sent.part(1, b"right")
    assert sent.complete([first]).status_code == 400
    assert sent.complete([again]).status_code == 200
    assert fal.file(sent.url).content == b"right"
    entry = uploads(fal)["files"][0]
    assert (entry["parts"], entry["sent"]) == (1, 2)


@pytest.mark.parametrize(
    "listed",
    [
        [2, 1],
        [1, 2],
        [1, 3],
        [1, 2, 3, 4],
        [1, 1, 2, 3],
        [],
        None,
        [{"partNumber": 1}],
        [{"partNumber": True, "etag": '"x"'}],
        [{"partNumber": 1, "etag": '"wrong"'}, 2, 3],
        ["text"],
    ],
)
def test_a_list_of_parts_that_does_not_fit_is_refused_and_may_be_corrected(fal: Fal, listed: Any) -> None:
    sent = InParts(fal)
    parts = {number: sent.part(number, b"part %d" % number) for number in (1, 2, 3)}
    entries = [
        parts.get(entry, {"partNumber": entry, "etag": '"x"'}) if isinstance(entry, int) else entry
        for entry in listed or ()
    ]
    assert sent.complete(entries if listed is not None else None).status_code == 400
    assert fal.file(sent.url).status_code == 404
    assert sent.complete([parts[1], parts[2], parts[3]]).status_code == 200


def test_etags_may_come_back_without_quotes(fal: Fal) -> None:
    sent = InParts(fal)
    part = sent.part(1, b"x")
    assert sent.complete([{**part, "etag": part["etag"].strip('"')}]).status_code == 200


def test_the_etag_of_a_part_gets_lost_where_the_reply_may_be_compressed(fal: Fal) -> None:
    assert "etag" not in InParts(fal).put(1, b"x", **{"Accept-Encoding": "gzip, deflate"}).headers


@pytest.mark.parametrize("number", ["0", "10001"])
def test_part_numbers_have_bounds(fal: Fal, number: str) -> None:
    assert InParts(fal).put(int(number), b"x").status_code == 400


def test_parts_belong_to_their_account_and_upload(fal: Fal) -> None:
    sent = InParts(fal)
    sent.auth = bearer(fal, "other")
    assert sent.put(1, b"x").status_code == 404
    sent.auth = {}
    assert sent.put(1, b"x").status_code == 401
    sent.auth, sent.id = bearer(fal), "0" * 40
    assert sent.put(1, b"x").status_code == 404


@pytest.mark.parametrize("storage_type", ["gcs", "fal-cdn-v3"])
def test_a_target_takes_bytes_without_any_key(fal: Fal, sandbox: SandboxProcess, storage_type: str) -> None:
    page = initiate(fal, storage_type)
    assert fal.file(page["file_url"]).status_code == 404
    reply = fal.public.put(page["upload_url"], content=b"pixels", headers={"Content-Type": "image/png"})
    assert reply.status_code == 200
    got = fal.file(page["file_url"])
    assert (got.content, got.headers["content-type"]) == (b"pixels", "image/png")
    assert sandbox.stats()["leaked_keys"] == 0


def test_a_key_that_comes_along_to_a_target_is_a_leak(fal: Fal, sandbox: SandboxProcess) -> None:
    page = initiate(fal)
    assert fal.http.put(page["upload_url"], content=b"pixels").status_code == 200
    assert sandbox.stats()["leaked_keys"] == 1


def test_a_target_wants_its_own_signature(fal: Fal) -> None:
    one, other = initiate(fal), initiate(fal)
    bare = one["upload_url"].partition("?")[0]
    assert fal.public.put(bare, content=b"x").status_code == 403
    assert fal.public.put(f"{bare}?{urlsplit(other['upload_url']).query}", content=b"x").status_code == 403
    assert fal.public.get(one["upload_url"]).status_code == 405
    parts = initiate(fal, "gcs", "initiate-multipart")
    assert fal.public.put(parts["upload_url"], content=b"x").status_code == 404


def test_a_file_put_twice_is_one_file_and_shows(fal: Fal) -> None:
    page = initiate(fal)
    for data in (b"first", b"second"):
        assert fal.public.put(page["upload_url"], content=data).status_code == 200
    assert fal.file(page["file_url"]).content == b"second"
    found = uploads(fal)
    assert (found["count"], found["files"][0]["sent"]) == (1, 2)


def test_parts_by_target_as_the_js_client_sends_them(fal: Fal, sandbox: SandboxProcess) -> None:
    page = initiate(fal, "fal-cdn-v3", "initiate-multipart")
    target = urlsplit(page["upload_url"])
    listed = []
    for number, piece in enumerate((b"one ", b"two "), 1):
        url = f"{target.scheme}://{target.netloc}{target.path}/{number}?{target.query}"
        reply = fal.public.put(url, content=piece).json()
        assert reply["partNumber"] == number
        listed.append({"partNumber": reply["partNumber"], "etag": reply["etag"]})
    done = f"{target.scheme}://{target.netloc}{target.path}/complete?{target.query}"
    assert fal.public.post(done, json={"parts": listed}).status_code == 200
    assert fal.file(page["file_url"]).content == b"one two "
    assert sandbox.stats()["leaked_keys"] == 0


def test_reset_forgets_uploads_and_gives_out_no_url_twice(fal: Fal, sandbox: SandboxProcess) -> None:
    url, sent = upload(fal), InParts(fal)
    sandbox.reset()
    assert fal.file(url).status_code == 404
    assert sent.put(1, b"x").status_code == 404
    assert uploads(fal) == {"count": 0, "bytes": 0, "unfinished": 0, "files": []}
    assert upload(fal) != url


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"do": "drop_before"}, httpx.HTTPError),
        ({"do": "drop_after"}, httpx.HTTPError),
        ({"do": "status:503"}, None),
        ({"do": "truncate"}, httpx.RemoteProtocolError),
    ],
)
def test_faults_meet_the_try_at_a_part_that_they_name(
    fal: Fal, sandbox: SandboxProcess, rule: dict[str, Any], error: type[Exception] | None
) -> None:
    sandbox.add_faults([{"on": "upload", "endpoint": "part/2", "nth": 1, **rule}])
    sent = InParts(fal)
    listed = [sent.part(1, b"one")]
    if error is None:
        assert sent.put(2, b"two").status_code == 503
    else:
        with pytest.raises(error):
            sent.put(2, b"two")
    listed.append(sent.part(2, b"two"))
    assert sent.complete(listed).status_code == 200
    assert uploads(fal)["files"][0]["sent"] == (3 if rule["do"] in {"drop_after", "truncate"} else 2)
    assert "upload" in sandbox.stats()["requests"]


def test_faults_meet_every_step_of_an_upload(fal: Fal, sandbox: SandboxProcess) -> None:
    steps = ("token", "initiate", "file", "create", "part/1", "complete")
    sandbox.add_faults([{"on": "upload", "endpoint": step, "do": "delay:0.001"} for step in steps])
    upload(fal)
    initiate(fal)
    sent = InParts(fal)
    sent.complete([sent.part(1, b"x")])
    assert [rule["fired"] >= 1 for rule in sandbox.faults()] == [True] * len(steps)


def test_a_reply_of_absurd_types_can_be_asked_for(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "upload", "endpoint": "file", "do": "types"}])
    assert isinstance(post_file(fal).json()["access_url"], int)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(fal: Fal) -> None:
    headers = bearer(fal)

    def broken() -> Any:
        yield b"x" * 100_000
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        fal.public.post(f"{fal.origin}/cdn/files/upload", content=broken(), headers=headers)
    assert uploads(fal)["count"] == 0
