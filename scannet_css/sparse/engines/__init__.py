"""The engines: what computes a sparse convolution. choice.py says which one runs."""
