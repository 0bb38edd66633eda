"""Pictures to look at: a function from a prompt, a seed and a size to an image file. Needs Pillow, nothing else.

`frame` puts a picture together; `palettes` are the colours, `canvas` the brushes,
`landscapes` and `abstracts` the motifs.
"""
