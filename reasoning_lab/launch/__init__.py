"""Runs a stage here, by torchrun, on SLURM or on Ray."""
