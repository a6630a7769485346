"""Run a model file: the libraries that can, the devices they run on, and whether they compute what was trained."""
