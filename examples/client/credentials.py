"""Where the key comes from: an argument, else FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, or a login of fal's own tool."""

import os

import falbatch

with falbatch.Client(key=os.environ["FAL_KEY"]) as client:
    print(client.subscribe("fal-ai/flux/schnell", arguments={"prompt": "a red kite"})["prompt"])

try:
    falbatch.Client(key="no-colon-in-it").submit("fal-ai/flux/schnell", arguments={"prompt": "a red kite"})
except falbatch.CredentialsError as error:
    print("refused:", error)
