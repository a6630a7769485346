"""Algorithm 1, and what its steps need."""
