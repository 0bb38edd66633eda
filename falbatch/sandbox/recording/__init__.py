"""Files that are not pictures: `speech` makes WAV, `film` MP4, `weights` safetensors. `film` alone needs PyAV.

Each is a function of what the file shows, and gives the same bytes for the same.
"""
