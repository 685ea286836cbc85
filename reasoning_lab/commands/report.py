"""What evaluations in the store say, and the report of it.

`results_of` reads one recipe's evaluations back; `publish` writes and prints the report of one
recipe or of many. `report_recipes` reports what the store already holds of some recipes: it runs
nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from reasoning_lab.commands.arguments import to_sweep
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.config.identity import as_plain
from reasoning_lab.evaluate.completion_metrics import PREFIX
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.graph.recipe import Node, variant_label
from reasoning_lab.graph.record import Record, fingerprint
from reasoning_lab.graph.store import Store
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.evidence import Completions, Evidence, GraphNode
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.report.table import console_table, heading, mean_cells, row_cells, sentences
from reasoning_lab.report.write import write_report
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.types import UserError

_MEASURED = (
    "pass@",
    "maj@",
    "by_sample",
    "correct_",
    "wrong_",
    "unparseable_",
    "timeout_",
    "truncated_",
    PREFIX,
)


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        rows: One for each policy, seed and benchmark.
        claims: Means and differences with their intervals.
        paths: Each file of the report, by its kind: `html`, `markdown`, `json`, `ladder`, …
    """

    rows: Sequence[Row]
    claims: Claims
    paths: Mapping[str, Path]


def report_recipes(recipes: Iterable[Recipe]) -> Report:
    """Report on recipes from the store alone, in a new folder below `paths.runs`.

    Raises:
        UserError: An evaluation is missing; nothing is averaged over what is there.
    """
    rows: list[Row] = []
    results: list[StageResult] = []
    incomplete: list[str] = []
    runs = Path("runs")
    artifacts: dict[str, Record] = {}
    evidence = Evidence()
    for recipe in recipes:
        runs = Path(recipe.root.paths.runs)
        store = Store(runs / "store")
        # The evaluations and the policies that they are of: a report needs nothing else.
        evaluations = [node for node in recipe.nodes if isinstance(node.stage, EvaluateStage)]
        needed = [one for node in evaluations for one in (*node.inputs.values(), node)]
        for node in needed:
            name, known = node.fingerprint, artifacts.get(node.fingerprint)
            if record := known or store.lookup(node.stage.name, name):
                artifacts[name] = record
        if lacking := [node.name for node in needed if node.fingerprint not in artifacts]:
            words = " ".join(recipe.overrides)
            incomplete.append(
                f"{words or 'the recipe'} lacks {', '.join(lacking)}; run it first: "
                f"{' '.join(['reasoning-lab', words]).rstrip()}"
            )
            continue
        for node in recipe.nodes:
            if (record := store.record(node.stage.name, node.fingerprint)) is not None:
                artifacts.setdefault(node.fingerprint, record)
        recipe_rows, recipe_results = results_of(recipe, artifacts)
        add_evidence(evidence, recipe, artifacts)
        rows += recipe_rows
        results += recipe_results
    if incomplete:
        others = len(incomplete) - 1
        counted = "1 more recipe is" if others == 1 else f"{others} more recipes are"
        more = f"; {counted} incomplete" if others else ""
        raise UserError(f"report: {incomplete[0]}{more}")
    return publish(rows, results, evidence, timestamped_folder(runs / "reports"), Console())


def results_of(
    recipe: Recipe, artifacts: Mapping[str, Record]
) -> tuple[list[Row], list[StageResult]]:
    """Rows and verdicts of a finished recipe.

    `artifacts` has, by fingerprint, those of the evaluations and of the policies they are of.
    """
    rows, results = [], []
    for node in recipe.nodes:
        if not isinstance(node.stage, EvaluateStage):
            continue
        metrics, policy = artifacts[node.fingerprint].metrics, node.inputs.get(Policy.kind)
        # A checkpoint that was taken as it is has no artifact; what it is decides its name.
        name = fingerprint({"model": node.identity["groups"]["model"]})
        trained: Mapping[str, Any] = {"train_tokens": 0, "wall_s": 0.0}
        if policy is not None:
            name, trained = policy.fingerprint, artifacts[policy.fingerprint].metrics
        samples = Evaluation(artifacts[node.fingerprint].path).samples(node.stage.benchmark.samples)
        about: dict[str, Any] = {
            "variant": recipe.variant,
            "stage": _policy_name(node),
            "seed": recipe.root.seed,
            "benchmark": node.stage.benchmark_name,
            "fingerprint": name,
        }
        results.append(StageResult(**about, **samples._asdict()))
        rows.append(
            Row(
                **about,
                n=metrics["n"],
                samples=metrics["samples"],
                pass_at_1=metrics["pass@1"],
                ci95=tuple(metrics["ci95"]),
                completion_tokens=metrics["completion_tokens"],
                train_tokens=trained["train_tokens"],
                wall_s=trained["wall_s"],
                measured={
                    key: value
                    for key, value in metrics.items()
                    if key.startswith(_MEASURED) and key != "pass@1"
                },
            )
        )
    return rows, results


def _policy_name(node: Node) -> str:
    """What the policy that an evaluation measures is called."""
    return node.name.rpartition("/")[0]


def add_evidence(evidence: Evidence, recipe: Recipe, artifacts: Mapping[str, Record]) -> None:
    """Add what stands behind a finished recipe's numbers; `artifacts` as for `results_of`."""
    seed, variant = recipe.root.seed, recipe.variant
    title = f"{variant_label(variant)}, seed {seed}"
    evidence.configs[title] = yaml.safe_dump(as_plain(recipe.root), sort_keys=False)
    for node in recipe.nodes:
        record = artifacts.get(node.fingerprint)
        if node.fingerprint in evidence.nodes:
            continue
        evidence.nodes[node.fingerprint] = GraphNode(
            f"{node.name} (seed {seed})",
            node.fingerprint,
            [maker.fingerprint for maker in node.inputs.values()],
            record.metrics["wall_s"] if record else None,
            record.ledger if record else {},
        )
        if record is None:
            continue
        if isinstance(node.stage, EvaluateStage):
            about = {"variant": variant_label(variant), "seed": seed, "stage": _policy_name(node)}
            evidence.completions.append(
                Completions(record.path, {**about, "benchmark": node.stage.benchmark_name})
            )
        elif record.kind == Policy.kind:
            evidence.policies[f"{node.name}, {title}"] = record.path


def publish(
    rows: Sequence[Row],
    results: Sequence[StageResult],
    evidence: Evidence,
    out_dir: Path,
    console: Console,
) -> Report:
    """Write the report into `out_dir` and print its tables and sentences."""
    claims = Claims.of(results)
    paths = write_report(rows, claims, results, evidence, out_dir)
    if claims.means:
        title = f"{heading(rows)}, mean over seeds"
        console.print(console_table(title, *mean_cells(claims.means)))
    else:
        console.print(console_table(heading(rows), *row_cells(rows)))
    for sentence in sentences([*claims.stages, *claims.variants]):
        console.print(sentence.replace("**", ""), markup=False, soft_wrap=True)
    console.print(f"Report: {paths['html']}, {paths['markdown'].name}", soft_wrap=True)
    return Report(rows, claims, paths)


def main(arguments: Sequence[str]) -> None:
    """Report a recipe, or every combination of swept overrides, from the store."""
    report_recipes(recipes(to_sweep(arguments)))
