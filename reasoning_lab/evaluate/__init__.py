"""Evaluation: how well a policy answers held-out problems, and how sure that is."""
