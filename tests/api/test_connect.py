"""What fal lists is brought into the form in which we know our own inputs."""

from __future__ import annotations

import json

import pytest

from falbatch.api.connect import FalPlatform, find_target
from falbatch.api.offline import target_kind
from falbatch.core.identity import canonical_json
from falbatch.fal.auth import Credentials
from falbatch.fal.exchange import Reply
from falbatch.fal.hosts import Hosts
from falbatch.fal.platform import PlatformClient

pytestmark = pytest.mark.anyio

IDS = [f"7c2e6a3e-0a36-4a0e-9b1d-1f2a3b4c5d6{digit}" for digit in "ef"]


class OnePage:
    """A transport that answers every call with one page of two requests."""

    async def request(self, *_: object, **__: object) -> Reply:
        strange = '{"x": 1e999, "seed": 1180591620717411303424}'
        ours = json.dumps({"seed": 2**70, "prompt": "a kite"})
        items = ",".join(
            f'{{"request_id": "{request_id}", "sent_at": "2026-11-21T08:00:00Z", "json_input": {given}}}'
            for request_id, given in zip(IDS, (strange, ours), strict=True)
        )
        return Reply(200, {"content-type": "application/json"}, f'{{"items": [{items}], "next_cursor": null}}'.encode())


async def test_a_strange_input_of_somebody_else_hides_none_of_ours() -> None:
    client = PlatformClient(OnePage(), Hosts("https://queue.fal.run"), Credentials("Key", "a:b", source="FAL_KEY"))
    page = await FalPlatform(client).page("fal-ai/flux/dev", since=0.0, cursor=None)
    assert page.items[-1].request_id == IDS[1]
    assert page.items[-1].input_json == canonical_json({"prompt": "a kite", "seed": 2**70})
    assert [one.input_json for one in page.items[:-1]] in ([], [None])


LOCAL, KEY = "http://127.0.0.1:1", {"FAL_KEY": "a:b"}


@pytest.mark.parametrize(
    ("env", "kind", "costs"),
    [
        ({}, "fal", True),
        ({"FALBATCH_ORIGIN": LOCAL}, "loopback", False),
        ({"FALBATCH_QUEUE_URL": LOCAL}, "loopback", False),
        ({"FALBATCH_QUEUE_URL": LOCAL, "FALBATCH_RUN_URL": "https://fal.run"}, "fal", True),
        ({"FALBATCH_RUN_URL": LOCAL}, "fal", True),
    ],
)
def test_nothing_costs_only_where_all_that_can_cost_is_local(env: dict[str, str], kind: str, costs: bool) -> None:
    target = find_target(key_file=None, origin=None, env=KEY | env)
    assert (target.kind, target_kind(env, sandbox=False), target.costs) == (kind, kind, costs)
