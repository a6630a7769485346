"""Data to learn from: benchmark data sets, drawn ones, and what a training step looks at."""
