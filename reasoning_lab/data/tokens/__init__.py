"""Documents as tokens: packing and batches."""
