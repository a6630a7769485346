"""Algorithm 1 and its steps."""
