"""Bodies that come packed (`Content-Encoding`): unpacked piece by piece, so that a small one cannot fill the memory.

Once for all carriers: each library does it a little differently, and one of them loses the reply's head over it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator

PIECE_BYTES: Final = 256 * 1024
"""Most that one step unpacks."""

_GZIP: Final = 16 + zlib.MAX_WBITS


class BadPacking(Exception):
    """Raised when a body is not packed as its head says."""


class _Inflater:
    """One layer of gzip or deflate."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inner = zlib.decompressobj(window_bits)
        self._is_untouched = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` adds. Raises BadPacking."""
        while chunk:
            if self._inner.eof:  # of a gzip file within a gzip file's end (RFC 1952, 2.2)
                self._inner = zlib.decompressobj(self._window_bits)
            piece = self._step(chunk)
            chunk = self._inner.unconsumed_tail or self._inner.unused_data
            if piece:
                yield piece

    def _step(self, chunk: bytes) -> bytes:
        try:
            piece = self._inner.decompress(chunk, PIECE_BYTES)
        except zlib.error as error:
            if not self._is_untouched or self._window_bits != zlib.MAX_WBITS:
                raise BadPacking(str(error)) from error
            # "deflate" is zlib's format (RFC 9110, 8.4.1.2), and some servers send it without zlib's head.
            self._window_bits = -zlib.MAX_WBITS
            self._inner = zlib.decompressobj(self._window_bits)
            return self._step(chunk)
        self._is_untouched = False
        return piece


def unpacked(chunks: AsyncIterable[bytes], encoding: str) -> AsyncIterable[bytes]:
    """The body of `chunks` as its sender packed it in `encoding`, the value of a Content-Encoding. What we never asked
    for (Brotli, say) stays as it is: the head is worth having all the same. Raises BadPacking while it is read."""
    words = [word.strip().lower() for word in encoding.split(",")]
    layers: list[_Inflater] = []
    for word in reversed([word for word in words if word not in {"", "identity"}]):
        if word not in {"gzip", "x-gzip", "deflate"}:
            break
        layers.append(_Inflater(zlib.MAX_WBITS if word == "deflate" else _GZIP))
    return _through(chunks, layers) if layers else chunks


async def _through(chunks: AsyncIterable[bytes], layers: list[_Inflater]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        for piece in _fed(chunk, layers):
            yield piece


def _fed(chunk: bytes, layers: list[_Inflater]) -> Iterator[bytes]:
    if not layers:
        yield chunk
        return
    for piece in layers[0].feed(chunk):
        yield from _fed(piece, layers[1:])
