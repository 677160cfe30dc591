"""The image-set format: reading, writing, checking, and tables keyed by image."""
