"""Where files are: on the disk, or in an object store, which is named by a URL such as s3://bucket/folder."""
