"""Make a model file: active learning from image labels and a few pixel masks, with torch."""
