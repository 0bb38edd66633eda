"""Where fal is, and which URLs may have the key (design §3, fal-protocol §13 no. 9)."""

from __future__ import annotations

import pytest

from falbatch.errors import UsageError
from falbatch.fal.hosts import API_URL, CDN_URL, OPENAPI_URL, REST_URL, VARIABLES, HostName, Hosts

FAL = "https://queue.fal.run"
SANDBOX = "http://127.0.0.1:8787/queue"


@pytest.mark.parametrize(
    ("env", "origin", "queue"),
    [
        ({}, None, FAL),
        ({"FAL_RUN_HOST": "run.example"}, None, "https://queue.run.example"),
        ({"FAL_RUN_HOST": "a.example", "FAL_QUEUE_RUN_HOST": "q.example/base"}, None, "https://q.example/base"),
        ({"FAL_QUEUE_RUN_HOST": "q", "FALBATCH_ORIGIN": "https://o:1/"}, None, "https://o:1/queue"),
        ({"FALBATCH_ORIGIN": "http://localhost:1"}, None, "http://localhost:1/queue"),
        ({"FALBATCH_ORIGIN": "https://o", "FALBATCH_QUEUE_URL": "https://q/"}, None, "https://q"),
        ({"FALBATCH_QUEUE_URL": "https://q"}, "http://127.0.0.1:8787", SANDBOX),
        ({"FALBATCH_QUEUE_URL": ""}, None, FAL),
        ({}, "http://[::1]:5", "http://[::1]:5/queue"),
    ],
)
def test_the_later_of_the_designs_list_wins(env: dict[str, str], origin: str | None, queue: str) -> None:
    assert Hosts.resolve(env, origin=origin).queue == queue


@pytest.mark.parametrize(
    ("env", "origin", "api"),
    [
        ({}, None, "https://api.fal.ai/v1"),
        ({"FALBATCH_ORIGIN": "http://localhost:1/"}, None, "http://localhost:1/api/v1"),
        ({"FALBATCH_ORIGIN": "https://o", "FALBATCH_API_URL": "https://a/x/"}, None, "https://a/x"),
        ({"FALBATCH_ORIGIN": "https://o", "FALBATCH_QUEUE_URL": "https://q"}, None, "https://o/api/v1"),
        ({"FALBATCH_API_URL": "https://a", "FALBATCH_ORIGIN": "https://o"}, "http://[::1]:5", "http://[::1]:5/api/v1"),
        ({"FALBATCH_API_URL": "http://127.0.0.1:9/v1"}, None, "http://127.0.0.1:9/v1"),
        ({"FALBATCH_API_URL": ""}, None, API_URL),
    ],
)
def test_the_platform_api_is_named_by_the_later_of_the_same_list(
    env: dict[str, str], origin: str | None, api: str
) -> None:
    assert Hosts.resolve(env, origin=origin).api == api


@pytest.mark.parametrize(
    ("env", "api"),
    [
        ({"FAL_RUN_HOST": "run.example"}, ""),
        ({"FAL_QUEUE_RUN_HOST": "q.example"}, ""),
        ({"FALBATCH_QUEUE_URL": "https://queue.fal.run.evil.com"}, ""),
        ({"FALBATCH_QUEUE_URL": "https://queue.fal.run:8443"}, ""),
        ({"FALBATCH_QUEUE_URL": "http://127.0.0.1:8787/queue"}, ""),
        ({"FAL_RUN_HOST": "run.example", "FALBATCH_API_URL": "https://a/v1"}, "https://a/v1"),
        ({"FAL_RUN_HOST": "falrun.com"}, API_URL),
        ({"FAL_QUEUE_RUN_HOST": "queue.fal.run"}, API_URL),
        ({"FAL_RUN_HOST": "run.example", "FALBATCH_QUEUE_URL": "https://queue.fal.run"}, ""),
        ({"FALBATCH_RUN_URL": "http://127.0.0.1:8787/run"}, ""),
    ],
)
def test_a_key_for_a_foreign_queue_never_goes_to_fals_platform(env: dict[str, str], api: str) -> None:
    assert Hosts.resolve(env).api == api


BESIDE = (API_URL, REST_URL, CDN_URL, OPENAPI_URL)
NOTHING = ("", "", "", "")


@pytest.mark.parametrize(
    ("env", "run", "beside"),
    [
        ({}, "https://fal.run", BESIDE),
        ({"FAL_RUN_HOST": "falrun.com"}, "https://falrun.com", BESIDE),
        ({"FAL_RUN_HOST": "run.example/a"}, "https://run.example/a", NOTHING),
        ({"FAL_QUEUE_RUN_HOST": "q.example"}, "", NOTHING),
        ({"FAL_QUEUE_RUN_HOST": "q.example", "FAL_RUN_HOST": "fal.run"}, "https://fal.run", NOTHING),
        ({"FALBATCH_QUEUE_URL": "https://q", "FALBATCH_RUN_URL": "https://r/"}, "https://r", NOTHING),
        ({"FALBATCH_RUN_URL": "https://r", "FALBATCH_REST_URL": "https://s"}, "https://r", ("", "https://s", "", "")),
        ({"FALBATCH_CDN_URL": "https://c"}, "https://fal.run", (API_URL, REST_URL, "https://c", OPENAPI_URL)),
        ({"FALBATCH_OPENAPI_URL": "https://o"}, "https://fal.run", (API_URL, REST_URL, CDN_URL, "https://o")),
        (
            {"FALBATCH_ORIGIN": "https://o:1", "FALBATCH_RUN_URL": "https://r"},
            "https://r",
            ("https://o:1/api/v1", "https://o:1/rest", "https://o:1/cdn", "https://o:1/openapi"),
        ),
    ],
)
def test_what_is_not_named_beside_a_foreign_queue_or_run_is_unknown(
    env: dict[str, str], run: str, beside: tuple[str, ...]
) -> None:
    hosts = Hosts.resolve(env)
    assert (hosts.run, (hosts.api, hosts.rest, hosts.cdn, hosts.openapi)) == (run, beside)


def test_the_sandboxs_origin_names_everything() -> None:
    env = dict.fromkeys(VARIABLES.values(), "https://elsewhere.example")
    hosts = Hosts.resolve(env, origin="http://127.0.0.1:8787/")
    base = "http://127.0.0.1:8787"
    assert hosts == Hosts(
        f"{base}/queue", f"{base}/api/v1", f"{base}/run", f"{base}/rest", f"{base}/cdn", f"{base}/openapi"
    )


@pytest.mark.parametrize(("name", "variable"), [item for item in VARIABLES.items() if item[0] != "queue"])
def test_a_host_that_is_needed_and_unknown_is_asked_for_by_its_variable(name: HostName, variable: str) -> None:
    assert Hosts(FAL).need(name) == getattr(Hosts(FAL), name)
    with pytest.raises(UsageError) as caught:
        Hosts.resolve({"FALBATCH_QUEUE_URL": "https://q.example"}).need(name)
    assert variable in caught.value.advice
    assert "https://q.example" in str(caught.value)


def test_hosts_of_a_queue_alone_have_fals_platform() -> None:
    assert Hosts(FAL).api == API_URL
    assert not Hosts(FAL, "http://127.0.0.1:1/v1").loopback


@pytest.mark.parametrize("api", ["api.fal.ai", "https://h/?a=b", "https://u:p@h", "ftp://h"])
def test_a_platform_that_is_no_base_url_is_refused(api: str) -> None:
    with pytest.raises(UsageError, match="base URL"):
        Hosts(FAL, api)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"FALBATCH_ORIGIN": "http://fal.example"}, "plain http"),
        ({"FALBATCH_QUEUE_URL": "http://10.0.0.1:80"}, "plain http"),
        ({"FALBATCH_QUEUE_URL": "queue.fal.run"}, "FALBATCH_QUEUE_URL"),
        ({"FALBATCH_QUEUE_URL": "https://u:secret@h"}, "FALBATCH_QUEUE_URL"),
        ({"FALBATCH_QUEUE_URL": "https://h/?a=b"}, "FALBATCH_QUEUE_URL"),
        ({"FALBATCH_API_URL": "http://api.fal.example/v1"}, "plain http"),
        ({"FALBATCH_API_URL": "https://u:secret@h/v1"}, "FALBATCH_API_URL"),
        ({"FALBATCH_API_URL": "api.fal.ai/v1", "FALBATCH_ORIGIN": "https://o"}, "FALBATCH_API_URL"),
        ({"FAL_RUN_HOST": "https://fal.run"}, "FAL_RUN_HOST"),
        ({"FAL_QUEUE_RUN_HOST": "h:99999"}, "FAL_QUEUE_RUN_HOST"),
        ({"FAL_QUEUE_RUN_HOST": "h/../x"}, "FAL_QUEUE_RUN_HOST"),
    ],
)
def test_a_host_that_cannot_be_used_is_named_by_its_variable(env: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Hosts.resolve(env)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("queue", "loopback"),
    [(FAL, False), (SANDBOX, True), ("https://localhost", True), ("http://[::1]:1", True), ("https://h", False)],
)
def test_loopback_is_known(queue: str, loopback: bool) -> None:
    assert Hosts(queue, run="").loopback is loopback
    assert Hosts(queue, run="http://localhost:1").loopback is loopback
    assert not Hosts(queue).loopback  # direct calls cost, wherever the queue is


TRUSTED_OF_FAL = [
    "https://queue.fal.run/fal-ai/flux/requests/x/status",
    "https://queue.fal.run/fal-ai/flux/requests/x/status?logs=1",
    "https://QUEUE.fal.run:443/x",
    "https://fal.run/x",
    "https://queue.falrun.com/x",
    "https://falrun.com",
    "https://a.b.fal.run/x",
]
NEVER_TRUSTED = [
    "",
    "http://queue.fal.run/x",
    "https://queue.fal.run:8443/x",
    "https://queue.fal.run.evil.com/x",
    "https://evilfal.run/x",
    "https://fal.run.evil.com/x",
    "https://fal.ai/x",
    "https://v3.fal.media/x",
    "https://u:p@queue.fal.run/x",
    "https://queue.fal.run@evil.com/x",
    "https://evil.com/https://queue.fal.run",
    "https://evil.com#queue.fal.run",
    "https://evil.com?queue.fal.run",
    "https://evil.com\\@queue.fal.run/x",
    "https://queue.fal.run\\.evil.com/x",
    "https://queue.fal.run\t/x",
    "https://queue.fal.run/x\r\nHost: evil.com",
    " https://queue.fal.run/x",
    "https://queue.fal.run/x ",
    "https:queue.fal.run/x",
    "https:///queue.fal.run/x",
    "//queue.fal.run/x",
    "/fal-ai/flux",
    "ftp://queue.fal.run/x",
    "https://queue.fal.run/a/../b",
    "https://queue.fal.run/a/%2e%2E/b",
    "https://queue。fal.run/x",
    "https://queue.fal.run/é",
    "https://.fal.run/x",
    "https://a..fal.run/x",
    "https://queue.fal.run./x",
    "https://queue.fal.run:0/x",
    "https://queue.fal.run/" + "x" * 3000,
]


@pytest.mark.parametrize("url", TRUSTED_OF_FAL)
def test_fals_own_hosts_may_have_the_key(url: str) -> None:
    assert Hosts(FAL).trusts(url)


@pytest.mark.parametrize("url", NEVER_TRUSTED)
@pytest.mark.parametrize("queue", [FAL, SANDBOX, "https://proxy.example/fal"])
def test_no_other_url_may_have_the_key(url: str, queue: str) -> None:
    assert not Hosts(queue).trusts(url)


def test_a_configured_host_is_trusted_alone_and_below_its_path_only() -> None:
    sandbox = Hosts(SANDBOX)
    assert sandbox.trusts(SANDBOX)
    assert sandbox.trusts(SANDBOX + "/fal-ai/x/requests/y")
    for url in (
        "http://127.0.0.1:8787/cdn/x",
        "http://127.0.0.1:8787/queuejump",
        "https://127.0.0.1:8787/queue/x",
        "http://127.0.0.1:8788/queue/x",
        "http://localhost:8787/queue/x",
        "https://queue.fal.run/x",
    ):
        assert not sandbox.trusts(url), url
    assert not Hosts("https://proxy.example/fal").trusts("https://queue.fal.run/x")
