"""Metrics, tables and artifacts: the tracker protocol, Weights & Biases, and local histories."""
