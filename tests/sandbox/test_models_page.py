"""What the platform says of models, and their OpenAPI documents. Over a real socket."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.sandbox.catalogue.models import MODELS
from falbatch.sandbox.endpoints import profile_of
from tests.sandbox.conftest import KEY, Fal

if TYPE_CHECKING:
    import httpx

    from tests.sandbox_process import SandboxProcess

DEV = "fal-ai/flux/dev"


def ask(fal: Fal, path: str = "models", **query: Any) -> httpx.Response:
    return fal.public.get(f"{fal.origin}/api/v1/{path}", params=query)


def listed(fal: Fal, **query: Any) -> list[str]:
    reply = ask(fal, **query)
    assert reply.status_code == 200, reply.text
    return [item["endpoint_id"] for item in reply.json()["models"]]


def document(fal: Fal, endpoint: str) -> httpx.Response:
    return fal.public.get(f"{fal.origin}/openapi/queue/openapi.json", params={"endpoint_id": endpoint})


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(member) for member in value.values()))
    return set().union(*(references(entry) for entry in value)) if isinstance(value, list) else set()


def test_the_list_needs_no_key_and_filters(fal: Fal) -> None:
    assert listed(fal) == [*MODELS]
    assert listed(fal, category="speech-to-text") == ["fal-ai/whisper", "fal-ai/wizper"]
    assert listed(fal, status="deprecated") == ["fal-ai/any-llm"]
    assert len(listed(fal, status="active")) == len(MODELS) - 1
    assert listed(fal, q="FLUX enhanced") == ["fal-ai/flux-pro/v1.1"]
    assert listed(fal, q="kite") == []
    assert listed(fal, endpoint_id=f"fal-ai/wizper,{DEV}") == ["fal-ai/wizper", DEV]
    assert listed(fal, endpoint_id=["fal-ai/wizper", DEV], q="flux") == [DEV]


def test_metadata_has_fals_members(fal: Fal) -> None:
    (item,) = ask(fal, endpoint_id=DEV).json()["models"]
    assert item.keys() == {"endpoint_id", "metadata"}
    metadata = item["metadata"]
    assert metadata["is_favorited"] is None
    assert (metadata["status"], metadata["kind"], metadata["category"]) == ("active", "inference", "text-to-image")
    assert metadata["group"] == {"key": "flux-1", "label": "FLUX.1"}
    assert metadata["duration_estimate"] == pytest.approx(2.5 / 60, abs=1e-4)
    assert metadata["stream_url"].endswith("fal-ai/flux/dev/stream")
    with_key = fal.get(f"{fal.origin}/api/v1/models", params={"endpoint_id": DEV}).json()["models"][0]
    assert with_key["metadata"] == metadata | {"is_favorited": False}
    (training,) = ask(fal, category="training").json()["models"]
    assert training["metadata"]["kind"] == "training"
    assert training["metadata"]["inference_endpoint_ids"] == ["fal-ai/flux-lora"]


def test_pages_follow_each_other(fal: Fal) -> None:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ask(fal, limit=7, **cursor).json()
        found += [item["endpoint_id"] for item in page["models"]]
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == [*MODELS]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"endpoint_id": "me/mine"}, 404),
        ({"endpoint_id": f"{DEV},fal-ai/does-not-exist"}, 404),
        ({"endpoint_id": ",".join(f"a/{n}" for n in range(51))}, 400),
        ({"status": "old"}, 400),
        ({"limit": "0"}, 400),
        ({"limit": "101"}, 400),
        ({"cursor": "x"}, 400),
        ({"cursor": "bW9kZWxzOi0x"}, 400),
        ({"expand": "everything"}, 400),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(fal: Fal, query: dict[str, str], code: int) -> None:
    reply = ask(fal, **query)
    type_ = "validation_error" if code == 400 else "not_found"
    assert (reply.status_code, reply.json()["error"]["type"]) == (code, type_)


def test_a_wrong_key_is_refused_even_where_none_is_needed(fal: Fal) -> None:
    for path in ("models", "meta"):
        url = f"{fal.origin}/api/v1/{path}"
        assert fal.public.get(url, headers={"Authorization": "nonsense"}).status_code == 401
        assert fal.public.get(url, headers=KEY).status_code == 200
    assert ask(fal, "models/pricing", endpoint_id=DEV).status_code == 401


def test_webhooks_come_from_this_machine(fal: Fal) -> None:
    assert ask(fal, "meta").json() == {"webhook_ip_ranges": ["127.0.0.1/32", "::1/128"]}


@pytest.mark.parametrize("endpoint", MODELS)
def test_the_document_is_fals(fal: Fal, endpoint: str) -> None:
    page = document(fal, endpoint).json()
    assert page["openapi"] == "3.0.4"
    assert page["info"]["title"] == f"Queue OpenAPI for {endpoint}"
    assert page["info"]["x-fal-metadata"]["endpointId"] == endpoint
    assert page["info"]["x-fal-metadata"]["category"] == MODELS[endpoint].category
    assert page["servers"] == [{"url": "https://queue.fal.run"}]
    schemas = page["components"]["schemas"]
    assert references(page) == {f"#/components/schemas/{name}" for name in schemas}
    one = f"/{endpoint}/requests/{{request_id}}"
    assert [*page["paths"]] == [f"{one}/status", f"{one}/cancel", f"/{endpoint}", one]
    body = page["paths"][f"/{endpoint}"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert schemas[body.rpartition("/")[2]] == MODELS[endpoint].input
    result = page["paths"][one]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert result.removesuffix("Output") == body.removesuffix("Input")
    assert [item["openapi"] for item in ask(fal, endpoint_id=endpoint, expand="openapi-3.0").json()["models"]] == [page]


def test_documents_of_the_unknown_are_not_found(fal: Fal) -> None:
    for wrong in ("me/mine", "fal-ai/does-not-exist", "flux", "a//b"):
        assert document(fal, wrong).status_code == 404
    assert document(fal, "").status_code == 400
    assert document(fal, f"{DEV}/").status_code == 200
    assert fal.public.get(f"{fal.origin}/openapi/other.json").status_code == 404
    assert fal.public.post(f"{fal.origin}/openapi/queue/openapi.json?endpoint_id={DEV}").status_code == 405


def test_faults_meet_documents_under_their_own_word(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "openapi", "do": "status:503", "endpoint": DEV}, {"on": "platform", "do": "status:500"}])
    assert document(fal, DEV).status_code == 503
    assert document(fal, "fal-ai/whisper").status_code == 200
    assert sandbox.stats()["requests"]["openapi"] == {"200": 1, "503": 1}


def test_every_model_has_the_price_that_it_is_billed_by(fal: Fal) -> None:
    reply = fal.get(f"{fal.origin}/api/v1/models/pricing", params={"endpoint_id": ",".join(MODELS)})
    prices = {entry["endpoint_id"]: entry for entry in reply.json()["prices"]}
    assert prices.keys() == MODELS.keys()
    for endpoint, entry in prices.items():
        assert entry["unit_price"] == profile_of(endpoint).unit_price > 0
    words = {prices[endpoint]["unit"] for endpoint in MODELS}
    seconds = {"second", "compute second", "minute"}
    assert words == {"image", "megapixel", "request", "1000 characters", "step"} | seconds


def test_what_only_some_calls_need_is_not_imported_at_the_start() -> None:
    code = (
        "import sys\n"
        "import falbatch.sandbox.serve, falbatch.sandbox.server, falbatch.sandbox.world\n"
        "print([name for name in ('PIL', 'av', 'jsonschema') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
