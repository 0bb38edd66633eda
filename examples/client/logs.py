"""Read what a model writes while it works."""

import falbatch


def show(status: falbatch.Status) -> None:
    """The whole log so far comes with each status."""
    for line in getattr(status, "logs", None) or []:
        print(type(status).__name__, line["message"])


falbatch.subscribe(
    "fal-ai/flux/dev", arguments={"prompt": "a red kite", "image_size": "square"}, with_logs=True, on_queue_update=show
)
