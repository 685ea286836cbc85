"""The lab from Python: what the command does, as functions that a notebook calls.

    from reasoning_lab.commands import api as lab

    recipe = lab.compose("experiment=smoke", "seed=1")
    lab.run(recipe)
    corpus = lab.load(recipe)["distill"]
    print(len(corpus.accepted()), "accepted rollouts")
    lab.report(lab.sweep("experiment=smoke", "ablate=none,dpo"))

Overrides are those of the command line. Each function calls what the command calls, so that both
find the same artifacts in the same store.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import get_gh_backup, restore_gh_from_backup

from reasoning_lab.commands.arguments import config_dir_override
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.commands.sweep import recipes, with_sweep
from reasoning_lab.config.hydra_errors import is_composition_error, one_sentence
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.store import Store
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from reasoning_lab.commands.rehearsal import Rehearsal
    from reasoning_lab.commands.report import Report
    from reasoning_lab.commands.run import RunResult
    from reasoning_lab.doctor.check import Examined


def compose(*overrides: str, config_dir: str | Path | None = None) -> Recipe:
    """Compose and link one recipe; nothing runs.

    Args:
        overrides: As on the command line, e.g. `experiment=smoke`.
        config_dir: Folder with options of your own, as `--config-dir` names it.

    Raises:
        UserError: An override is impossible, or a key takes several values.
    """
    composed = _composed(overrides, config_dir, of_experiment=False)
    if len(composed) > 1:
        raise UserError(
            f"compose: {' '.join(overrides)} gives {len(composed)} recipes; give each key one "
            "value, or call sweep"
        )
    return composed[0]


def sweep(*overrides: str, config_dir: str | Path | None = None) -> list[Recipe]:
    """Compose every combination of swept values, as a multirun (`-m`) would run them.

    Args:
        overrides: As on the command line, e.g. `seed=0,1,2`; the experiment's own sweep is added.
        config_dir: As for `compose`.

    Raises:
        UserError: A combination is impossible, or the sweeper searches.
    """
    return _composed(overrides, config_dir, of_experiment=True)


def plan(recipe: Recipe) -> list[PlannedNode]:
    """What a run would make and what it would reuse, with tokens, memory and time; runs nothing.

    Raises:
        UserError: The data lacks something that the recipe needs.
    """
    check_data([recipe], local_only=True)
    return planned([recipe])


def doctor(recipe: Recipe) -> "list[Examined]":
    """Look whether the recipe's model is what training assumes: every check with its result.

    Raises:
        UserError: The model is trained from scratch, or a server's.
    """
    from reasoning_lab.commands.doctor import examine

    return list(examine(recipe))


def rehearse(recipe: Recipe) -> "Rehearsal":
    """Run every stage of these settings, shrunk, in minutes on this machine.

    Returns:
        Its steps, measures and warnings; `passed` says whether every step did.

    Raises:
        UserError: The settings are impossible, as a run would refuse them.
    """
    from reasoning_lab.commands.rehearse import rehearse_in_new_folder

    return rehearse_in_new_folder(recipe.root)


def run(recipe: Recipe) -> "RunResult":
    """Make what the store lacks and write the report, as the command does.

    The run's folder has the report and `log.txt`; only the command writes Hydra's files there.

    Returns:
        The records by stage and the report.

    Raises:
        UserError: Something that the run needs is missing or impossible.
        KeyboardInterrupt: Ctrl-C stopped it; the next `run` continues from what was saved.
    """
    from reasoning_lab.commands.run import run as run_recipe

    return run_recipe(recipe, timestamped_folder(Path(recipe.root.paths.runs) / "recipes"))


def load(recipe: Recipe) -> dict[str, Artifact]:
    """The recipe's artifacts in the store, by the names of its stages and evaluations.

    Each has the type of its kind (`Policy`, `Corpus`, `Preferences`, `Evaluation`), which reads it.

    Raises:
        UserError: The store lacks one of them.
    """
    store = Store(Path(recipe.root.paths.runs) / "store")
    artifacts: dict[str, Artifact] = {}
    for node in recipe.nodes:
        if record := store.lookup(node.stage.name, node.fingerprint):
            artifacts[node.name] = node.produces(record.path)
    if missing := [node.name for node in recipe.nodes if node.name not in artifacts]:
        raise UserError(f"load: {store.root} lacks {', '.join(missing)}; call run(recipe) first")
    return artifacts


def report(of: Recipe | Iterable[Recipe]) -> "Report":
    """One report on recipes that were run, from the store alone.

    Returns:
        Its rows, its claims with their intervals, and the paths of its files.

    Raises:
        UserError: An evaluation is missing; nothing is averaged over an incomplete sweep.
    """
    from reasoning_lab.commands.report import report_recipes

    return report_recipes([of] if isinstance(of, Recipe) else of)


def _composed(
    overrides: tuple[str, ...], config_dir: str | Path | None, *, of_experiment: bool
) -> list[Recipe]:
    if not all(isinstance(word, str) for word in overrides):
        raise UserError(
            "overrides: each is a text of its own, as in compose('seed=1', 'recipe=tiny')"
        )
    register_schemas()
    words = [*([] if config_dir is None else [config_dir_override(config_dir)]), *overrides]
    # A kernel may have a Hydra of its own, which refuses a second one beside it.
    user_hydra = get_gh_backup()
    GlobalHydra.instance().clear()
    try:
        return list(recipes(with_sweep(words) if of_experiment else words))
    except Exception as error:
        if not is_composition_error(error):
            raise
        raise UserError(one_sentence(error)) from error
    finally:
        restore_gh_from_backup(user_hydra)
