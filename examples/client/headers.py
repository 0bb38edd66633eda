"""What can be asked for with a submit: headers of your own, priority, a runner hint, a deadline for its start, tags."""

import falbatch

handle = falbatch.submit(
    "fal-ai/flux/schnell",
    arguments={"prompt": "a red kite"},
    headers={"X-My-App": "kites"},  # passed on to the app
    priority="low",  # waits behind everybody's normal requests
    hint="kites",  # requests with the same hint prefer the same runner
    start_timeout=600,  # given up by fal when it has not started by then
    tags={"team": "art"},  # labels for the bill
)
print(type(handle.status()).__name__, handle.get()["seed"])
