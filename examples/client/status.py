"""Ask how far a request is: once, until it is done, and as a stream that fal keeps open."""

import falbatch

handle = falbatch.submit("fal-ai/flux/dev", arguments={"prompt": "a red kite", "image_size": "square"})
match handle.status():
    case falbatch.Queued(position=position):
        print("behind", position, "others")
    case status:
        print("first look:", type(status).__name__)
for status in handle.stream_status():
    print("from the stream:", type(status).__name__)
