"""Keep a connection open and send input after input: no queue in between, bytes instead of URLs."""

import falbatch

with falbatch.realtime("fal-ai/fast-lcm-diffusion") as connection:
    for seed in range(3):
        connection.send({"prompt": "a red kite", "seed": seed})
        answer = connection.recv()
        print("seed", seed, "-", len(answer["images"][0]["content"]), "bytes")
