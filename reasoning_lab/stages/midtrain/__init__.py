"""`midtrain`: packed next-token training on distilled chain-of-thought (paper, step 1)."""
