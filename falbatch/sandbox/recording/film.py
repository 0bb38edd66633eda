"""Videos: a slow camera over a painted scene, with prompt, seed and a bar of time. MP4, H.264 and AAC."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import av
from PIL import Image, ImageDraw

from falbatch.sandbox.painting.frame import add_caption, paint_scene
from falbatch.sandbox.recording import speech

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

    from falbatch.sandbox.media import Clip

_MOST_FRAMES: Final = 48
"""Four seconds at the full rate; a longer video has fewer frames a second, so that none costs more."""
_MOST_FPS: Final = 12
_MARGIN: Final = 0.12
"""How much wider the scene is than the frame: the way of the camera."""
_VOICE: Final = "af_heart"


def frame_rate(seconds: float) -> int:
    """Frames a second of a video of that length."""
    return max(2, min(_MOST_FPS, int(_MOST_FRAMES / seconds)))


def shoot(clip: Clip) -> bytes:
    """The video file: the same bytes for the same value, with one version of PyAV and Pillow."""
    buffer = BytesIO()
    rate = frame_rate(clip.seconds)
    # Without a version and a date in the file, equal clips are equal.
    options = {"fflags": "+bitexact"}
    with av.open(buffer, "w", format="mp4", options=options) as container:
        video = _video_stream(container, clip, rate)
        sound = container.add_stream("aac", rate=speech.SAMPLE_RATE) if clip.has_sound else None
        if sound is not None:
            sound.layout = "mono"
            _encode_sound(container, sound, clip)
        for image in _frames(clip, max(1, round(clip.seconds * rate))):
            for packet in video.encode(_frame_of(image)):
                container.mux(packet)
        for packet in video.encode(None):
            container.mux(packet)
    return buffer.getvalue()


def _video_stream(container: OutputContainer, clip: Clip, rate: int) -> VideoStream:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
    # One thread, or the bytes would depend on the machine.
    stream.codec_context.thread_count = 1
    stream.options = {"preset": "ultrafast", "crf": "30", "x264-params": "threads=1"}
    return stream


def _frames(clip: Clip, count: int) -> Iterator[Image.Image]:
    """A window that moves over a scene a little larger than itself; text and bar stay where they are."""
    width, height = clip.width, clip.height
    way_x, way_y = round(width * _MARGIN), round(height * _MARGIN)
    scene, palette = paint_scene(*clip.scene, width + way_x, height + way_y)
    titled = scene.crop((0, 0, width, height))
    strip = max(0, add_caption(titled, clip.prompt, f"seed {clip.seed} · {clip.seconds:g} s", palette))
    bar = max(2, height // 90)
    for number in range(count):
        done = (number + 1) / count
        left, top = round(way_x * done), round(way_y * (1 - done))
        image = scene.crop((left, top, left + width, top + height))
        image.paste(titled.crop((0, strip, width, height)), (0, strip))
        ImageDraw.Draw(image).rectangle((0, height - bar, round(width * done), height), fill=palette.accent)
        yield image


def _encode_sound(container: OutputContainer, stream: AudioStream, clip: Clip) -> None:
    """The prompt, spoken again and again until the video ends."""
    total = round(clip.seconds * speech.SAMPLE_RATE) * speech.SAMPLE_BYTES
    once = speech.samples(f"{clip.prompt[:200]}. ", _VOICE, 1.0)
    data = (once * (total // len(once) + 1))[:total]
    step = 1024 * speech.SAMPLE_BYTES
    for start in range(0, total, step):
        part = data[start : start + step].ljust(step, b"\0")
        frame = av.AudioFrame(format="s16", layout="mono", samples=1024)
        frame.sample_rate = speech.SAMPLE_RATE
        frame.pts = start // speech.SAMPLE_BYTES
        frame.planes[0].update(part)
        for packet in stream.encode(frame):
            container.mux(packet)
    for packet in stream.encode(None):
        container.mux(packet)


def _frame_of(image: Image.Image) -> av.VideoFrame:
    make: Any = av.VideoFrame.from_image  # has no types
    frame: av.VideoFrame = make(image)
    return frame
