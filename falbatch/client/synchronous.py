"""The client for threads: a door to AsyncClient, not a copy of it. All threads share one loop and its connections.

Callbacks (`on_enqueue`, `on_queue_update`) run in the calling thread and may call the client again.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from falbatch.client.asynchronous import AsyncClient
from falbatch.client.door import Call, Door, drawn, entered
from falbatch.client.held import RealtimeConnection, SyncRequestHandle, WebSocket
from falbatch.client.realtime import TOKEN_LIFE_S

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Unpack

    from PIL import Image

    from falbatch.client.asking import Extras, Priority, SubmitExtras, UploadRepositoryId
    from falbatch.client.asynchronous import Mode
    from falbatch.client.connections import ClientSettings
    from falbatch.client.statuses import Status
    from falbatch.fal.lifecycle import StorageSettings
    from falbatch.fal.webhooks import Delivery


class SyncClient:
    """fal, for threads: what AsyncClient does, with the same words. Safe to share; closes at exit by itself."""

    def __init__(
        self, key: str | None = None, default_timeout: float = 120.0, *, settings: ClientSettings | None = None
    ) -> None:
        self.asynchronous = AsyncClient(key, default_timeout, settings=settings)
        """The client that does it. Only for coroutines of `door`'s loop."""
        self.door = Door("falbatch-client")
        self._end = weakref.finalize(self, self.door.close)

    @property
    def key(self) -> str | None:
        """The key that was given; None for the environment's."""
        return self.asynchronous.key

    @property
    def default_timeout(self) -> float:
        """Seconds for a submit to be answered."""
        return self.asynchronous.default_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End calls under way and close connections. A later call begins anew."""
        self.door.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(default_timeout={self.default_timeout!r})"

    def verify_webhook(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """What a webhook says, if it is fal's. See AsyncClient.verify_webhook."""
        return self.door.call(lambda: self.asynchronous.verify_webhook(headers, body))

    def run(
        self,
        application: str,
        arguments: Any,
        *,
        method: str = "POST",
        path: str = "",
        timeout: float | None = None,
        start_timeout: float | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extras: Unpack[Extras],
    ) -> Any:
        """Run a model on one connection and give its output. See AsyncClient.run."""
        return self.door.call(
            lambda: self.asynchronous.run(
                application,
                arguments,
                method=method,
                path=path,
                timeout=timeout,
                start_timeout=start_timeout,
                hint=hint,
                headers=headers,
                **extras,
            )
        )

    def stream(
        self,
        application: str,
        arguments: Any,
        *,
        path: str = "/stream",
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **extras: Unpack[Extras],
    ) -> Iterator[Any]:
        """Run a model that tells its progress, and give each event as it comes. See AsyncClient.stream."""
        return drawn(
            self.door,
            lambda: self.asynchronous.stream(
                application, arguments, path=path, timeout=timeout, headers=headers, **extras
            ),
        )

    def submit(
        self,
        application: str,
        arguments: Any,
        *,
        path: str = "",
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        **extras: Unpack[SubmitExtras],
    ) -> SyncRequestHandle:
        """Put a request into fal's queue and give its handle. See AsyncClient.submit."""
        handle = self.door.call(
            lambda: self.asynchronous.submit(
                application,
                arguments,
                path=path,
                hint=hint,
                webhook_url=webhook_url,
                priority=priority,
                headers=headers,
                start_timeout=start_timeout,
                **extras,
            )
        )
        return SyncRequestHandle.of(self, handle)

    def subscribe(
        self,
        application: str,
        arguments: Any,
        *,
        path: str = "",
        hint: str | None = None,
        with_logs: bool = False,
        interval: float | None = None,
        on_enqueue: Callable[[str], None] | None = None,
        on_queue_update: Callable[[Status], None] | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
        mode: Mode = "polling",
        **extras: Unpack[SubmitExtras],
    ) -> Any:
        """Submit, wait, and give the output. See AsyncClient.subscribe."""
        call = Call[Any](self.door)
        return call.wait(
            lambda: self.asynchronous.subscribe(
                application,
                arguments,
                path=path,
                hint=hint,
                with_logs=with_logs,
                interval=interval,
                on_enqueue=call.here(on_enqueue),
                on_queue_update=call.here(on_queue_update),
                priority=priority,
                headers=headers,
                start_timeout=start_timeout,
                client_timeout=client_timeout,
                mode=mode,
                **extras,
            )
        )

    def get_handle(self, application: str, request_id: str) -> SyncRequestHandle:
        """The handle of a request whose id is known."""
        return SyncRequestHandle.from_request_id(self, application, request_id)

    def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Where a request is now."""
        return self.get_handle(application, request_id).status(with_logs=with_logs)

    def result(self, application: str, request_id: str) -> Any:
        """Wait until a request is over and give its output."""
        return self.get_handle(application, request_id).get()

    def cancel(self, application: str, request_id: str) -> None:
        """Ask fal to drop a request; FalClientHTTPError for one that is over or unknown."""
        self.get_handle(application, request_id).cancel()

    def upload(
        self,
        data: str | bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload `data` and give its URL. See AsyncClient.upload."""
        return self.door.call(
            lambda: self.asynchronous.upload(
                data,
                content_type,
                file_name,
                repository=repository,
                fallback_repository=fallback_repository,
                lifecycle=lifecycle,
            )
        )

    def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a file, with the type that its name tells, and give its URL."""
        return self.door.call(
            lambda: self.asynchronous.upload_file(
                path, repository=repository, fallback_repository=fallback_repository, lifecycle=lifecycle
            )
        )

    def upload_image(
        self,
        image: Image.Image,
        format: str = "jpeg",  # noqa: A002 - fal_client's word
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a Pillow image and give its URL."""
        return self.door.call(
            lambda: self.asynchronous.upload_image(
                image, format, repository=repository, fallback_repository=fallback_repository, lifecycle=lifecycle
            )
        )

    @contextmanager
    def realtime(
        self,
        application: str,
        *,
        use_jwt: bool = True,
        path: str = "/realtime",
        max_buffering: int | None = None,
        token_expiration: int = TOKEN_LIFE_S,
        encode_message: Callable[[Any], bytes] | None = None,
        decode_message: Callable[[bytes], Any] | None = None,
        reconnect: bool = False,
    ) -> Iterator[RealtimeConnection]:
        """A realtime connection, closed when the block ends. See AsyncClient.realtime."""
        opened = self.asynchronous.realtime(
            application,
            use_jwt=use_jwt,
            path=path,
            max_buffering=max_buffering,
            token_expiration=token_expiration,
            encode_message=encode_message,
            decode_message=decode_message,
            reconnect=reconnect,
        )
        with entered(self.door, opened) as connection:
            yield RealtimeConnection(connection, self.door)

    @contextmanager
    def ws_connect(
        self,
        application: str,
        *,
        use_jwt: bool = True,
        path: str = "",
        max_buffering: int | None = None,
        token_expiration: int = TOKEN_LIFE_S,
    ) -> Iterator[WebSocket]:
        """A socket to the app, closed when the block ends: frames as they are."""
        opened = self.asynchronous.ws_connect(
            application,
            use_jwt=use_jwt,
            path=path,
            max_buffering=max_buffering,
            token_expiration=token_expiration,
        )
        with entered(self.door, opened) as socket:
            yield WebSocket(socket, self.door)
