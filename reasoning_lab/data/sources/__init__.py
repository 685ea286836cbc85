"""Sources of problems: files, hub datasets, reasoning-gym and mixtures."""
