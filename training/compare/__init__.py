"""Experiments: methods x seeds, each a run of its own."""
