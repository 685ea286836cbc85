"""`rl`: GRPO with a verifiable reward and the paper's three stabilizers (paper, step 4)."""
