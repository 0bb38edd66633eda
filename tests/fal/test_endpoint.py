"""The grammar of endpoint ids (fal-protocol §2)."""

from __future__ import annotations

import pytest

from falbatch.fal.endpoint import EndpointId


@pytest.mark.parametrize(
    ("text", "submit", "app", "path"),
    [
        ("fal-ai/flux", "fal-ai/flux", "fal-ai/flux", None),
        ("fal-ai/flux/dev", "fal-ai/flux/dev", "fal-ai/flux", "dev"),
        ("fal-ai/wan/v2.2-a14b/text-to-video", "fal-ai/wan/v2.2-a14b/text-to-video", "fal-ai/wan", None),
        ("workflows/me/mine", "workflows/me/mine", "workflows/me/mine", None),
        ("workflows/me/mine/v2", "workflows/me/mine/v2", "workflows/me/mine", "v2"),
        ("comfy/some_one/graph", "comfy/some_one/graph", "comfy/some_one/graph", None),
        ("110602490-lora", "110602490/lora", "110602490/lora", None),
        ("110602490-my-app-2", "110602490/my-app-2", "110602490/my-app-2", None),
        ("110602490-lora/x", "110602490-lora/x", "110602490-lora/x", None),
    ],
)
def test_an_id_is_posted_in_full_and_asked_about_in_its_app_form(
    text: str, submit: str, app: str, path: str | None
) -> None:
    endpoint = EndpointId.parse(text)
    assert (endpoint.submit_path, endpoint.app_path, str(endpoint)) == (submit, app, submit)
    if path is not None:
        assert endpoint.path == path


def test_the_parts_of_an_id_have_names() -> None:
    endpoint = EndpointId.parse("workflows/me/mine/a/b")
    assert (endpoint.namespace, endpoint.owner, endpoint.alias, endpoint.path) == (
        "workflows",
        "me",
        "mine",
        "a/b",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("flux", "no alias"),
        ("110602490-", "no alias"),
        ("workflows/me", "workflows/ needs an owner"),
        ("https://queue.fal.run/fal-ai/flux/dev", "write only 'fal-ai/flux/dev'"),
        ("https://fal.ai/models/fal-ai/flux/dev", "write only 'fal-ai/flux/dev'"),
        ("https://fal.run", "fal-ai/flux/dev"),
        ("fal-ai/flux?x=1", "try 'fal-ai/flux'"),
        ("fal-ai/flux#x", "try 'fal-ai/flux'"),
        ("/fal-ai/flux", "try 'fal-ai/flux'"),
        ("fal-ai/flux/", "try 'fal-ai/flux'"),
        ("fal-ai//flux", "try 'fal-ai/flux'"),
        ("fal-ai/../flux", "leave the endpoint"),
        ("fal-ai/flux/.", "leave the endpoint"),
        (" fal-ai/flux", "the character ' '"),
        ("fal-ai/flux dev", "the character ' '"),
        ("fal-ai/flux\n", r"the character '\\n'"),
        ("fal-ai/fl\x00ux", r"the character '\\x00'"),
        ("fal-ai/flux\\dev", "the character"),
        ("fal-ai/%2e%2e/x", "the character '%'"),
        ("fal-ai/flüx", "the character 'ü'"),
        ("a/" * 400, "800 characters"),
    ],
)
def test_what_is_no_id_is_refused_with_the_right_form(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        EndpointId.parse(text)
