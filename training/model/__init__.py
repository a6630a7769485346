"""The joint network and its two training phases."""
