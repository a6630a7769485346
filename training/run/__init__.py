"""A run on disk: its settings, its state, its results."""
