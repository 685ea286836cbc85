"""`sft`: supervised fine-tuning on a harder subset, completion only (paper, step 2)."""
