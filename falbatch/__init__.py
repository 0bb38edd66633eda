"""falbatch: big, resumable batches against fal.ai's generative-media endpoints."""
