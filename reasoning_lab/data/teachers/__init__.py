"""Teachers, who write the solutions that a student learns from."""
