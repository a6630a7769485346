"""From a trained network to a model file, and to smaller, faster copies of it."""
