"""`distill`: verified worked solutions from a teacher (paper, step 1: rejection sampling)."""
