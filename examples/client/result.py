"""Fetch the result of a request that was submitted earlier, by its id; read a failure."""

import falbatch

request_id = falbatch.submit("fal-ai/flux/schnell", arguments={"prompt": "a red kite"}).request_id
print("seed", falbatch.result("fal-ai/flux/schnell", request_id)["seed"])

wrong = falbatch.submit("fal-ai/flux/schnell", arguments={"prompt": "a red kite", "num_images": 99}).request_id
try:
    falbatch.result("fal-ai/flux/schnell", wrong)
except falbatch.FalClientHTTPError as error:
    print("failed with", error.status_code, "-", error)
