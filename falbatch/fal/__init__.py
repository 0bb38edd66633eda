"""A fal client of its own: the wire, as fal-protocol tells it. Knows nothing of batches."""
