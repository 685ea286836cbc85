"""`dpo`: direct preference optimization on verified rollouts (paper, step 3)."""
