"""fal's client, with fal_client's words: `import falbatch.client as fal_client` moves a script over.

The functions are those of two clients that are made here and connect when first used: `sync_client`, `async_client`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from falbatch.client.asking import Extras, SubmitExtras
from falbatch.client.asynchronous import AsyncClient
from falbatch.client.connections import ClientSettings
from falbatch.client.context import set_get_current_app
from falbatch.client.encoding import encode, encode_file, encode_image
from falbatch.client.errors import (
    FalClientConnectionError,
    FalClientError,
    FalClientHTTPError,
    FalClientLostRequestError,
    FalClientTimeoutError,
    MissingCredentialsError,
    RealtimeError,
)
from falbatch.client.handles import AsyncRequestHandle
from falbatch.client.held import RealtimeConnection, SyncRequestHandle, WebSocket
from falbatch.client.realtime import AsyncRealtimeConnection, AsyncWebSocket
from falbatch.client.response import Response
from falbatch.client.statuses import Completed, InProgress, Queued, Status
from falbatch.client.synchronous import SyncClient
from falbatch.fal.again import Repeats
from falbatch.fal.lifecycle import ObjectExpiration, StorageACL, StorageACLDecision, StorageACLRule, StorageSettings
from falbatch.fal.storage import UploadLimits
from falbatch.fal.webhooks import Delivery, WebhookRefused

Client = SyncClient

try:
    __version__ = version("falbatch")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0"
version_tuple = tuple(int(part) if part.isdigit() else part for part in __version__.split("."))

sync_client = SyncClient()
run = sync_client.run
subscribe = sync_client.subscribe
submit = sync_client.submit
status = sync_client.status
result = sync_client.result
cancel = sync_client.cancel
stream = sync_client.stream
realtime = sync_client.realtime
ws_connect = sync_client.ws_connect
upload = sync_client.upload
upload_file = sync_client.upload_file
upload_image = sync_client.upload_image
verify_webhook = sync_client.verify_webhook

async_client = AsyncClient()
run_async = async_client.run
subscribe_async = async_client.subscribe
submit_async = async_client.submit
status_async = async_client.status
result_async = async_client.result
cancel_async = async_client.cancel
stream_async = async_client.stream
realtime_async = async_client.realtime
ws_connect_async = async_client.ws_connect
upload_async = async_client.upload
upload_file_async = async_client.upload_file
upload_image_async = async_client.upload_image
verify_webhook_async = async_client.verify_webhook

__all__ = [
    "AsyncClient",
    "AsyncRealtimeConnection",
    "AsyncRequestHandle",
    "AsyncWebSocket",
    "Client",
    "ClientSettings",
    "Completed",
    "Delivery",
    "Extras",
    "FalClientConnectionError",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientLostRequestError",
    "FalClientTimeoutError",
    "InProgress",
    "MissingCredentialsError",
    "ObjectExpiration",
    "Queued",
    "RealtimeConnection",
    "RealtimeError",
    "Repeats",
    "Response",
    "Status",
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
    "SubmitExtras",
    "SyncClient",
    "SyncRequestHandle",
    "UploadLimits",
    "WebSocket",
    "WebhookRefused",
    "__version__",
    "async_client",
    "cancel",
    "cancel_async",
    "encode",
    "encode_file",
    "encode_image",
    "realtime",
    "realtime_async",
    "result",
    "result_async",
    "run",
    "run_async",
    "set_get_current_app",
    "status",
    "status_async",
    "stream",
    "stream_async",
    "submit",
    "submit_async",
    "subscribe",
    "subscribe_async",
    "sync_client",
    "upload",
    "upload_async",
    "upload_file",
    "upload_file_async",
    "upload_image",
    "upload_image_async",
    "verify_webhook",
    "verify_webhook_async",
    "version_tuple",
    "ws_connect",
    "ws_connect_async",
]
