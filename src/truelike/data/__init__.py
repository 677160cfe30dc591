"""Image sets: the format, the sources they come from, how they are split, and how they are loaded."""
