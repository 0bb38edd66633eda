"""Decide how long files live at fal, and who may read them: for uploads, and for what a request makes."""

import falbatch

hidden = falbatch.StorageACL(default="forbid", rules=[falbatch.StorageACLRule(user="a-colleague", decision="allow")])
settings = falbatch.StorageSettings(expires_in="1d", initial_acl=hidden)
print("mine for a day:", falbatch.upload(b"notes", "text/plain", lifecycle=settings))

output = falbatch.subscribe("fal-ai/flux/schnell", arguments={"prompt": "a red kite"}, expires_in="1h")
print("gone in an hour:", output["images"][0]["url"])
