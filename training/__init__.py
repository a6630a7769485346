"""Make a model file: active learning from image labels and a few pixel masks, with torch."""

import os

# Read by OpenMP when torch loads: waiting threads sleep. Spinning, its default, makes a training step many times
# slower as soon as anything else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
