"""Training in several processes: each computes a part of every batch."""
