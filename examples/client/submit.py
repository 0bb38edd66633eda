"""Leave a request in fal's queue and keep its id: that is all one needs to come back to it, from any machine."""

import falbatch

handle = falbatch.submit("fal-ai/flux/schnell", arguments={"prompt": "a red kite"}, priority="normal")
print("request", handle.request_id)
print("its result:", handle.get()["images"][0]["content_type"])
