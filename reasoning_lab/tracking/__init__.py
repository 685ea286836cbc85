"""Metrics, tables and artifacts to Weights & Biases."""
