"""One update of the weights, and what stands beside it."""
