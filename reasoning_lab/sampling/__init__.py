"""Engines that generate completions, and the sampling of verified rollouts."""
