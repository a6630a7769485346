"""Oracles, which draw the masks that are asked for, and the files of annotation programs."""
