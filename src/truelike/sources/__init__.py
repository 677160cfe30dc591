"""Real images: decoding, squaring, splits, few shots, corruptions and out-of-distribution sets."""
