"""The subcommand `dashboard`: a W&B workspace and report of a recipe or a sweep."""

from collections.abc import Sequence

from reasoning_lab.commands.arguments import to_sweep
from reasoning_lab.commands.report import dashboard


def main(arguments: Sequence[str]) -> None:
    """Publish the dashboard of every combination and print where it is."""
    for location in dashboard(to_sweep(arguments)):
        print(location)
