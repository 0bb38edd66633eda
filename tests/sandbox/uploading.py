"""What a careful client does to upload, call by call, over plain httpx."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from tests.sandbox.conftest import Fal

LIFECYCLE = "X-Fal-Object-Lifecycle"
PREFERENCE = "X-Fal-Object-Lifecycle-Preference"


def asked(seconds: float | None = None, default: str | None = None, **rules: str) -> str:
    """The value of a lifecycle header."""
    wanted: dict[str, Any] = {}
    if seconds is not None:
        wanted["expiration_duration_seconds"] = seconds
    if default is not None:
        wanted["initial_acl"] = {
            "default": default,
            "rules": [{"user": user, "decision": decision} for user, decision in rules.items()],
        }
    return json.dumps(wanted)


def token_reply(fal: Fal, key: str = "Key me:secret", body: object = None, **more: str) -> httpx.Response:
    """The reply to asking for a CDN token."""
    url = f"{fal.origin}/rest/storage/auth/token?storage_type=fal-cdn-v3"
    return fal.public.post(url, json={} if body is None else body, headers={"Authorization": key, **more})


def bearer(fal: Fal, account: str = "me") -> dict[str, str]:
    """The header with a CDN token of an account."""
    page = token_reply(fal, f"Key {account}:secret").json()
    return {"Authorization": f"{page['token_type']} {page['token']}"}


def post_file(fal: Fal, data: bytes = b"hello", /, **headers: str) -> httpx.Response:
    """One POST with all the bytes, as the account `me` unless the headers say otherwise."""
    return fal.public.post(
        f"{fal.origin}/cdn/files/upload",
        content=data,
        headers={"Content-Type": "text/plain", **bearer(fal), **headers},
    )


def upload(fal: Fal, data: bytes = b"hello", /, **headers: str) -> str:
    """The URL of a file uploaded by one POST."""
    reply = post_file(fal, data, **headers)
    assert reply.status_code == 200, reply.text
    url: str = reply.json()["access_url"]
    return url


class InParts:
    """An upload in parts by CDN token (§6.2)."""

    def __init__(self, fal: Fal, **headers: str) -> None:
        self.fal = fal
        self.auth = bearer(fal)
        reply = fal.public.post(
            f"{fal.origin}/cdn/files/upload/multipart",
            headers={**self.auth, "Content-Type": "video/mp4", "X-Fal-File-Name": "clip.mp4", **headers},
        )
        assert reply.status_code == 200, reply.text
        page = reply.json()
        self.url: str = page["access_url"]
        self.id: str = page["uploadId"]

    def put(self, number: int, data: bytes, **headers: str) -> httpx.Response:
        """Send one part."""
        return self.fal.public.put(
            f"{self.url}/multipart/{self.id}/{number}",
            content=data,
            headers={**self.auth, "Accept-Encoding": "identity", **headers},
        )

    def part(self, number: int, data: bytes) -> dict[str, Any]:
        """Send one part; what `complete` wants to know of it."""
        reply = self.put(number, data)
        assert reply.status_code == 200, reply.text
        return {"partNumber": number, "etag": reply.headers["etag"]}

    def complete(self, parts: object) -> httpx.Response:
        """Say that it is whole."""
        return self.fal.public.post(
            f"{self.url}/multipart/{self.id}/complete", json={"parts": parts}, headers=self.auth
        )


def initiate(fal: Fal, storage_type: str = "gcs", name: str = "initiate", /, **headers: str) -> dict[str, str]:
    """Targets by key (§6.3): `upload_url` and `file_url`; `name` may be `initiate-multipart`."""
    reply = fal.http.post(
        f"{fal.origin}/rest/storage/upload/{name}?storage_type={storage_type}",
        json={"file_name": "photo.png", "content_type": "image/png"},
        headers=headers,
    )
    assert reply.status_code == 200, reply.text
    page: dict[str, str] = reply.json()
    return page
