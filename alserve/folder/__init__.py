"""Segment folders of images: what is to be done, doing it, and the manifest of what is done."""
