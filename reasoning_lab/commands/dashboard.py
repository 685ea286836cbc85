"""The subcommand `dashboard`: a W&B workspace and report of a recipe or a sweep."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from reasoning_lab.commands.arguments import to_sweep
from reasoning_lab.commands.sweep import recipes, swept_keys
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.tracking.dashboard import Subject, publish_dashboard
from reasoning_lab.training.stage import TrainingStage


def main(arguments: Sequence[str]) -> None:
    """Publish the dashboard of every combination and print where it is, at W&B or in a file."""
    overrides = to_sweep(arguments)
    swept_recipes, swept = list(recipes(overrides)), swept_keys(overrides)
    root = swept_recipes[0].root
    nodes = [node for recipe in swept_recipes for node in recipe.nodes]
    stages = [node.stage.name for node in nodes if isinstance(node.stage, TrainingStage)]
    benchmarks = [name for recipe in swept_recipes for name in recipe.root.benchmarks]
    subject = Subject(
        title=shorten(" ".join(overrides), 120) or "the recipe as it ships",
        command=" ".join(["reasoning-lab", *(["-m"] if swept else []), *overrides]),
        stages=list(dict.fromkeys(stages)),
        benchmarks=list(dict.fromkeys(benchmarks)),
        # A swapped option is no config key; the variant names it.
        swept=list(dict.fromkeys("variant" if "@" in key else key for key in swept)),
    )
    folder = timestamped_folder(Path(root.paths.runs) / "dashboards")
    for location in publish_dashboard(subject, root.tracker, folder):
        print(location)
