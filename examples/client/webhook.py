"""Be called by fal when a request has ended, and make sure that it was fal.

fal calls public https addresses only, so a tunnel or a proxy stands in front of this receiver in real life; the sandbox
calls this machine.
"""

from http.server import BaseHTTPRequestHandler, HTTPServer

import falbatch


class Receiver(BaseHTTPRequestHandler):
    """Believes what is signed by fal; a webhook is a hint, the result is read from fal."""

    def do_POST(self) -> None:
        """One delivery."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            delivery = falbatch.verify_webhook(dict(self.headers), body)
        except falbatch.WebhookRefused as reason:
            print("not from fal:", reason)
            self.send_error(401)
            return
        print(delivery.status, "for request", delivery.request_id)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of its own."""


with HTTPServer(("127.0.0.1", 0), Receiver) as server:
    address = f"http://127.0.0.1:{server.server_port}/fal"
    handle = falbatch.submit("fal-ai/flux/schnell", arguments={"prompt": "a red kite"}, webhook_url=address)
    server.handle_request()
print("seed", handle.get()["seed"])
