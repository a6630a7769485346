"""Who gives the masks that are asked for, and the files of annotation programs."""
