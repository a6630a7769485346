"""The rooms of the HTTP service: what stands between a request and the Predictor."""
