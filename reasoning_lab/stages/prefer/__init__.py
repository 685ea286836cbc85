"""`prefer`: pairs of a correct and a wrong rollout, for Rollout DPO (paper, step 3)."""
