"""Opens captioners, generators, encoders and classifiers, from a directory or a hub revision."""
