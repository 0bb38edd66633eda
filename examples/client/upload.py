"""Bring bytes, a file and a picture to fal; large files go in parts by themselves. Use the URLs as inputs."""

import tempfile
from pathlib import Path

from PIL import Image

import falbatch

picture = Image.new("RGB", (64, 48), (200, 40, 40))
print("bytes", falbatch.upload(b"notes", "text/plain", file_name="notes.txt"))
print("image", falbatch.upload_image(picture, format="png"))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "kite.png")
    picture.save(path)
    url = falbatch.upload_file(path)
    inline = falbatch.encode_file(path)  # a data URI: for small files, it travels inside the input
output = falbatch.subscribe("fal-ai/flux/dev/image-to-image", arguments={"image_url": url, "prompt": "at night"})
print("edited", output["images"][0]["url"], "from", len(inline), "characters as a data URI")
