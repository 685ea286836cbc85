"""Schemas of the config, their fields, import targets, and Hydra's errors in one sentence."""
