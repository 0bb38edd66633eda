"""Read a model's output while it is made: server-sent events, the last one is the whole output."""

import falbatch

question = {"prompt": "why is the sky blue?", "model": "openai/gpt-4o-mini"}
for event in falbatch.stream("fal-ai/any-llm", arguments=question):
    print(event["output"] if event["partial"] else f"all of it: {event['output']}")
