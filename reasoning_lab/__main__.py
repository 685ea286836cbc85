"""`python -m reasoning_lab` is the `reasoning-lab` command."""

from reasoning_lab.cli import main

main()
