"""Who writes the solutions that a student learns from."""
