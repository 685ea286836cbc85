"""Engines that write completions, and the rollouts made of them."""
