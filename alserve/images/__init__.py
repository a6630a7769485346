"""Bytes to pixels and back; the bytes may come from a stranger."""
