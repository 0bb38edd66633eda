"""Call a model directly and wait on the same connection. Its answer cannot be fetched again: prefer subscribe."""

import falbatch.client as fal

output = fal.run("fal-ai/flux/schnell", arguments={"prompt": "a red kite", "image_size": "square"}, timeout=120)
print(output["images"][0]["width"], "pixels wide, seed", output["seed"])
