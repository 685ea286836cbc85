"""What evaluations in the store say, and the report of it.

`results_of` reads one recipe's evaluations back; `publish` writes and prints the report of one
recipe or of many. `survey` composes every combination of a sweep and reports what the store
already holds of it: it runs nothing.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from reasoning_lab.compose import CONF, Recipe, compose
from reasoning_lab.evaluate.benchmark import read_correct
from reasoning_lab.evaluate.config import EvaluateConfig
from reasoning_lab.recipe import NO_ABLATION, Node
from reasoning_lab.report import (
    Row,
    StageResult,
    console_means,
    console_table,
    stage_differences,
    stage_means,
    write_report,
)
from reasoning_lab.report.table import sentence
from reasoning_lab.store import Artifact, Store
from reasoning_lab.types import UserError

# Swept keys that have a column of their own in the report.
_OWN_COLUMN = ("seed", "ablate")


def survey(overrides: Sequence[str]) -> dict[str, Path]:
    """Report on every combination of swept overrides, from the store alone.

    Args:
        overrides: As for a multirun: `seed=0,1,2`, `ablate=none,dpo`, `key=value`.

    Returns:
        Paths of the report's files.

    Raises:
        UserError: An evaluation is missing; nothing is averaged over what is there.
    """
    rows: list[Row] = []
    results: list[StageResult] = []
    missing: list[str] = []
    runs = Path("runs")
    for combination, label in combinations(overrides):
        with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            recipe = compose(hydra.compose("config", combination))
        runs = Path(recipe.root.paths.runs)
        store = Store(runs / "store")
        artifacts: dict[str, Artifact] = {}
        lacking: list[str] = []
        for node in _reported(recipe):
            artifact = store.lookup(node.folder, node.fingerprint)
            if artifact is None:
                lacking.append(node.name)
            else:
                artifacts[node.fingerprint] = artifact
        if lacking:
            missing.append(f"{' '.join(combination) or 'the recipe'} lacks {', '.join(lacking)}")
            continue
        found = results_of(recipe, artifacts, _variant(recipe, label))
        rows += found[0]
        results += found[1]
    if missing:
        raise UserError(
            f"report: {missing[0]}"
            + (f" (and {len(missing) - 1} more are incomplete)" if len(missing) > 1 else "")
            + f"; run it first: reasoning-lab -m {' '.join(overrides)}"
        )
    out_dir = runs / "reports" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    return publish(rows, results, out_dir, Console())


def combinations(overrides: Sequence[str]) -> list[tuple[list[str], str]]:
    """Each combination of swept overrides, with the swept ones that need to be named.

    Raises:
        UserError: An override sweeps over a continuous interval.
    """
    choices: list[list[tuple[str, str]]] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        line = override.input_line or ""
        if not override.is_sweep_override():
            choices.append([(line, "")])
            continue
        if not override.is_discrete_sweep():
            raise UserError(f"report: '{line}' is an interval; name the values, as in key=a,b")
        key = override.get_key_element()
        named = [f"{key}={value}" for value in override.sweep_string_iterator()]
        choices.append([(each, "" if key in _OWN_COLUMN else each) for each in named])
    return [
        ([line for line, _ in combined], ", ".join(name for _, name in combined if name))
        for combined in itertools.product(*choices)
    ]


def results_of(
    recipe: Recipe, artifacts: Mapping[str, Artifact], variant: str | None = None
) -> tuple[list[Row], list[StageResult]]:
    """Rows and verdicts of a finished recipe.

    Args:
        recipe: The composed run.
        artifacts: By fingerprint, those of the evaluations and of the policies they are of.
        variant: What the report calls it; by default, what was left out.
    """
    rows, results = [], []
    for node in recipe.nodes:
        if not isinstance(node.config, EvaluateConfig):
            continue
        policy = node.inputs["policy"]
        evaluated, made = artifacts[node.fingerprint], artifacts[policy.fingerprint]
        ids, correct = read_correct(evaluated.path, node.config.benchmark.samples)
        about: dict[str, Any] = {
            "variant": variant or recipe.variant,
            "stage": policy.name,
            "seed": recipe.root.seed,
            "benchmark": node.config.name,
        }
        results.append(StageResult(**about, problem_ids=ids, correct=correct))
        rows.append(
            Row(
                **about,
                n=evaluated.metrics["n"],
                samples=evaluated.metrics["samples"],
                pass_at_1=evaluated.metrics["pass@1"],
                ci95=tuple(evaluated.metrics["ci95"]),
                completion_tokens=evaluated.metrics["completion_tokens"],
                train_tokens=made.metrics["train_tokens"],
                wall_s=made.metrics["wall_s"],
                fingerprint=made.fingerprint,
            )
        )
    return rows, results


def publish(
    rows: Sequence[Row], results: Sequence[StageResult], out_dir: Path, console: Console
) -> dict[str, Path]:
    """Write the report into `out_dir` and print its tables and sentences."""
    differences, means = stage_differences(results), stage_means(results)
    paths = write_report(rows, differences, out_dir, means)
    if means:
        console.print(console_means(means))
    console.print(console_table(rows))
    for difference in differences:
        console.print(sentence(difference).replace("**", ""), markup=False, soft_wrap=True)
    console.print(f"Report: {paths['markdown']}", soft_wrap=True)
    return paths


def _reported(recipe: Recipe) -> list[Node]:
    """The evaluations and the policies that they are of: a report needs nothing else."""
    return [
        each
        for node in recipe.nodes
        if isinstance(node.config, EvaluateConfig)
        for each in (node.inputs["policy"], node)
    ]


def _variant(recipe: Recipe, label: str) -> str:
    if not label:
        return recipe.variant
    return label if recipe.variant == NO_ABLATION else f"{label}, without {recipe.variant}"
