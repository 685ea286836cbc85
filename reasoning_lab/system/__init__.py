"""Files, signals, processes and memory of the machine."""
