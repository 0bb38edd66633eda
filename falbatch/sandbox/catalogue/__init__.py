"""The models whose schemas this sandbox knows, as data: one module per family, all of them in `models`.

`fields` are the words that schemas are written in, `model` is what a model is, `reading` turns an input into what
the model makes of it, `checking` says what is wrong with it, `document` writes fal's OpenAPI document.
Needs jsonschema, and only when an input is checked.
"""
