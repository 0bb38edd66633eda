"""Every way in which fal says that a request failed (fal-protocol §8.2 and §8.3), as one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

START_DEADLINE: Final = "start_deadline"
"""Our word for a `request_timeout` that the caller's own start deadline caused (§3.1)."""

CANCELLED: Final = "client_cancelled"


class Family(StrEnum):
    """Who failed, which decides the shape of the body (§8.1)."""

    REQUEST = "request"
    """The infrastructure: `{"detail": text, "error_type": type}` and X-Fal-Error-Type."""
    MODEL = "model"
    """The model: `{"detail": [{loc, msg, type, url, ctx?, input?}]}` and the retry headers."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure."""

    type: str
    """As fal spells it."""
    status: int
    """HTTP status of the result call."""
    message: str
    family: Family = Family.MODEL
    retryable: bool = False
    """What X-Fal-Retryable and X-Fal-Needs-Retry say, for the model family."""
    ctx: Mapping[str, Any] = field(default_factory=dict)
    """An example of the context that fal sends along."""
    billed: bool = False
    """True for a 422 raised by the model's own code: it keeps the endpoint's units (§9.3). 5xx are free."""
    by_caller: bool = False
    """True when the caller's own start deadline did it: adds X-Fal-Request-Timeout-Type: user."""


def _request(type_: str, status: int, message: str, *, by_caller: bool = False) -> Failure:
    return Failure(type_, status, message, Family.REQUEST, by_caller=by_caller)


def _model(type_: str, message: str, **ctx: Any) -> Failure:
    return Failure(type_, 422, message, ctx=ctx, billed=True)


def _schema(type_: str, message: str, **ctx: Any) -> Failure:
    return Failure(type_, 422, message, ctx=ctx)


def _server(type_: str, status: int, message: str) -> Failure:
    return Failure(type_, status, message, retryable=True)


_IMAGES: Final = [".jpg", ".jpeg", ".png", ".webp"]
_ARCHIVES: Final = [".zip", ".tar", ".tar.gz"]

_REQUEST_FAILURES: Final = (
    _request("request_timeout", 504, "Request timed out"),
    _request("startup_timeout", 504, "Runner did not start in time"),
    _request("runner_scheduling_failure", 503, "No runner could be scheduled"),
    _request("runner_connection_timeout", 503, "Connecting to the runner timed out"),
    _request("runner_disconnected", 503, "Runner disconnected"),
    _request("runner_connection_refused", 503, "Runner refused the connection"),
    _request("runner_connection_error", 503, "Runner connection error"),
    _request("runner_incomplete_response", 502, "Runner sent an incomplete response"),
    _request("runner_server_error", 500, "Runner server error"),
    _request("internal_error", 500, "Internal error"),
    _request("client_disconnected", 499, "Client disconnected"),
    _request(CANCELLED, 499, "Request cancelled by the client."),
    _request("bad_request", 400, "Bad request"),
)

_MODEL_FAILURES: Final = (
    _server("internal_server_error", 500, "Internal server error"),
    _server("generation_timeout", 504, "Generation timed out"),
    _server("downstream_service_error", 400, "A downstream service returned an error"),
    _server("downstream_service_unavailable", 500, "A downstream service is unavailable"),
    _model("content_policy_violation", "The content could not be processed: content policy violation"),
    _model("no_media_generated", "No media was generated"),
    _model("image_too_small", "Image is too small", min_height=256, min_width=256),
    _model("image_too_large", "Image is too large", max_height=4096, max_width=4096),
    _model("image_load_error", "Failed to load the image"),
    _model("file_download_error", "Failed to download the file"),
    _model("face_detection_error", "No face could be detected"),
    _model("feature_not_supported", "This combination of inputs is not supported"),
    _model("file_too_large", "File is too large", max_size=10_485_760),
    _schema("greater_than", "Input should be greater than 0", gt=0),
    _schema("greater_than_equal", "Input should be greater than or equal to 1", ge=1),
    _schema("less_than", "Input should be less than 100", lt=100),
    _schema("less_than_equal", "Input should be less than or equal to 50", le=50),
    _schema("multiple_of", "Input should be a multiple of 8", multiple_of=8),
    _schema("sequence_too_short", "Sequence is too short", min_length=1),
    _schema("sequence_too_long", "Sequence is too long", max_length=10),
    _schema("one_of", "Input should be one of the expected values", expected=["a", "b"]),
    _schema("missing", "Field required"),
    _schema("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    _schema("int_type", "Input should be a valid integer"),
    _schema("string_type", "Input should be a valid string"),
    _schema("bool_type", "Input should be a valid boolean"),
    _schema("value_error", "Value error"),
    _schema("value_error.missing", "field required"),
    _model("invalid_archive", "Invalid archive", supported_extensions=_ARCHIVES),
    _model(
        "archive_file_count_below_minimum",
        "The archive holds too few files",
        min_count=4,
        provided_count=1,
        supported_extensions=_IMAGES,
    ),
    _model(
        "archive_file_count_exceeds_maximum",
        "The archive holds too many files",
        max_count=100,
        provided_count=250,
        supported_extensions=_IMAGES,
    ),
    _model("audio_duration_too_long", "Audio is too long", max_duration=60, provided_duration=75.5),
    _model("audio_duration_too_short", "Audio is too short", min_duration=1, provided_duration=0.2),
    _model("video_duration_too_long", "Video is too long", max_duration=60, provided_duration=75.5),
    _model("video_duration_too_short", "Video is too short", min_duration=1, provided_duration=0.2),
    _model("unsupported_audio_format", "Unsupported audio format", supported_formats=["mp3", "wav"]),
    _model("unsupported_image_format", "Unsupported image format", supported_formats=["jpeg", "png"]),
    _model("unsupported_video_format", "Unsupported video format", supported_formats=["mp4", "webm"]),
)

FAILURES: Final[Mapping[str, Failure]] = {
    failure.type: failure for failure in (*_REQUEST_FAILURES, *_MODEL_FAILURES)
} | {START_DEADLINE: _request("request_timeout", 504, "Request did not start in time", by_caller=True)}
"""By the word that a fault rule's `fail:` takes; all but START_DEADLINE are fal's own types."""


def detail_item(
    type_: str, message: str, loc: tuple[str | int, ...], ctx: Mapping[str, Any], **echo: Any
) -> dict[str, Any]:
    """One entry of the model family's `detail` list; `echo` is `input=<the offending value>` or nothing."""
    item: dict[str, Any] = {"loc": ["body", *loc], "msg": message, "type": type_}
    if ctx:
        item["ctx"] = dict(ctx)
    return {**item, **echo, "url": f"https://docs.fal.ai/errors/#{type_}"}
