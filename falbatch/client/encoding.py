"""What goes into a request: arguments as JSON, small files as data URIs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from falbatch.fal.data_uri import data_uri, guess_content_type

if TYPE_CHECKING:
    import os

    from PIL import Image


class Answered(Protocol):
    """What a model answered, by the queue or directly."""

    @property
    def output(self) -> Any: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...


def encode(data: str | bytes, content_type: str) -> str:
    """`data` as a data URI."""
    return data_uri(data.encode() if isinstance(data, str) else data, content_type)


def encode_file(path: str | os.PathLike[str]) -> str:
    """A file as a data URI, its type told by its name."""
    return data_uri(Path(path).read_bytes(), guess_content_type(path))


def encode_image(image: Image.Image, format: str = "jpeg") -> str:  # noqa: A002 - fal_client's word
    """A Pillow image as a data URI."""
    return data_uri(image_bytes(image, format), f"image/{format}")


def image_bytes(image: Image.Image, format: str) -> bytes:  # noqa: A002
    """A Pillow image as a file in memory."""
    with io.BytesIO() as buffer:
        image.save(buffer, format=format)
        return buffer.getvalue()


def body_of(application: str, arguments: Any) -> bytes:
    """`arguments` as JSON; integers of any size stay exact. TypeError or ValueError before anything is sent."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        hint = "; files go through upload(), upload_image() or encode_image()" if isinstance(error, TypeError) else ""
        kind = TypeError if isinstance(error, TypeError) else ValueError  # its own class may take other words
        raise kind(f"the arguments for {application} cannot be sent as JSON: {error}{hint}") from None


def output_of(answer: Answered) -> Any:
    """The JSON value of an answer; its bytes, when it is not JSON (audio, files)."""
    return answer.body if answer.output is None and not answer.content_type.endswith("json") else answer.output
