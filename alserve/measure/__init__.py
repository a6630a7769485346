"""Measure a model on labelled images, where it is served: without torch."""
