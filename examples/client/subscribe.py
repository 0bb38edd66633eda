"""Submit, wait and have the result in one call; say what happens on the way."""

import falbatch

output = falbatch.subscribe(
    "fal-ai/flux/schnell",
    arguments={"prompt": "a red kite over the sea", "image_size": "square", "seed": 7},
    on_enqueue=lambda request_id: print("accepted as", request_id),
    on_queue_update=lambda status: print(type(status).__name__),
    client_timeout=60,  # then the request is cancelled at fal, and the call raises FalClientTimeoutError
)
print(output["images"][0]["url"])
