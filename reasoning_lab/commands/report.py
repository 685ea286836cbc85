"""What evaluations in the store say, and the report of it.

`results_of` reads one recipe's evaluations back; `publish` writes and prints the report of one
recipe or of many. `report_recipes` reports what the store already holds of some recipes: it runs
nothing.
"""

import functools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from rich.console import Console
from rich.filesize import decimal

from reasoning_lab.commands.arguments import take_values, to_sweep
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.root_config import PathsConfig
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
from reasoning_lab.report.evidence import Completions, Evidence, GraphNode, Training
from reasoning_lab.report.expected import EXPECTED, update_expected
from reasoning_lab.report.outcomes import (
    OUTCOMES,
    Outcomes,
    read_outcomes,
    verdicts_of_evaluation,
    write_outcomes,
)
from reasoning_lab.report.overlap import prompt_overlap
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
        rows: One for each policy, seed and benchmark, and for each domain of one that has several.
        claims: Means and differences with their intervals.
        paths: Each file of the report, by its kind: `html`, `markdown`, `json`, `ladder`, …
    """

    rows: Sequence[Row]
    claims: Claims
    paths: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Finished:
    """What the store holds of finished recipes.

    Attributes:
        rows: One for each policy, seed and benchmark.
        results: The verified samples of each row, in the same order.
        verdicts: The completions of each row of a whole benchmark, in the same order.
        evidence: What stands behind the numbers.
        runs: The folder of the store and of reports.
        recipes_from_outcomes: How many recipes are no longer in the store.
    """

    rows: Sequence[Row]
    results: Sequence[StageResult]
    verdicts: Sequence[pa.Table]
    evidence: Evidence
    runs: Path
    recipes_from_outcomes: int


def report_recipes(recipes: Iterable[Recipe], outcomes: Path | None = None) -> Report:
    """Report on recipes from the store alone, in a new folder below `paths.runs`.

    With `outcomes`, the folder of an experiment, the outcomes are written there too, and what its
    `expected.json` says of them. What lies there already stands in for a store that lacks it.

    Raises:
        UserError: An evaluation is missing; nothing is averaged over what is there. Or policies of
            the outcomes would be lost.
    """
    file = outcomes / OUTCOMES if outcomes is not None else None
    done = finished(recipes, file)
    if file is not None:
        _require_all_policies(file, done.rows)
    folder = timestamped_folder(done.runs / "reports")
    console = Console()
    report = publish(done.rows, done.results, done.evidence, folder, console)
    if outcomes is not None and file is not None:
        if count := done.recipes_from_outcomes:
            of = "1 recipe is" if count == 1 else f"{count} recipes are"
            sentence = f"{of} no longer in the store: {file} has what came of it."
            console.print(sentence, markup=False, soft_wrap=True)
        write_outcomes(file, done.rows, done.verdicts, done.evidence)
        update_expected(outcomes)
        size = decimal(file.stat().st_size)
        console.print(f"Outcomes: {file}, {size}", markup=False, soft_wrap=True)
    return report


def report_outcomes(folder: Path, runs: Path) -> Report:
    """Report on an experiment from the outcomes in its folder, without a store.

    Raises:
        UserError: There are no outcomes, or they cannot be read.
    """
    outcomes = read_outcomes(folder / OUTCOMES)
    place = timestamped_folder(runs / "reports")
    return publish(outcomes.rows, outcomes.results, outcomes.evidence, place, Console())


def _require_all_policies(file: Path, rows: Sequence[Row]) -> None:
    """Refuse to write over outcomes of policies that these rows lack."""
    try:
        written = read_outcomes(file).rows if file.exists() else []
    except UserError:  # It is of another version, and cannot be read.
        return
    reported = {(row.variant, row.stage, row.seed, row.benchmark) for row in rows}
    lost = [
        f"'{row.stage}' of seed {row.seed} on '{row.benchmark}' ({variant_label(row.variant)})"
        for row in written
        if (row.variant, row.stage, row.seed, row.benchmark) not in reported
    ]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UserError(
            f"{file}: it has {lost[0]}{more}, which this report lacks; name all arms, seeds and "
            "benchmarks, or another folder"
        )


def finished(recipes: Iterable[Recipe], outcomes: Path | None = None) -> Finished:
    """What the store holds of these recipes, or else the file of outcomes.

    Raises:
        UserError: An evaluation is missing.
    """
    rows: list[Row] = []
    results: list[StageResult] = []
    verdicts: list[pa.Table] = []
    recipes_from_outcomes = 0
    incomplete: list[str] = []
    runs = Path("runs")
    artifacts: dict[str, Record] = {}
    evidence = Evidence()
    read = functools.cache(read_outcomes)
    for recipe in recipes:
        runs = Path(recipe.root.paths.runs)
        if lacking := _look_up(recipe, Store(runs / "store"), artifacts):
            known = of_recipe(read(outcomes), recipe) if outcomes and outcomes.exists() else None
            if known is None:
                words = " ".join(recipe.overrides)
                incomplete.append(
                    f"{words or 'the recipe'} lacks {', '.join(lacking)}; run it first: "
                    f"{' '.join(['reasoning-lab', words]).rstrip()}"
                )
                continue
            recipes_from_outcomes += 1
            recipe_rows, recipe_results = known.rows, known.results
            verdicts += [known.verdicts_of(row) for row in known.rows if row.domain is None]
            evidence.nodes.update(known.evidence.nodes)
            add_evidence(evidence, recipe, {})
        else:
            recipe_rows, recipe_results = results_of(recipe, artifacts)
            whole = [row for row in recipe_rows if row.domain is None]
            verdicts += [
                verdicts_of_evaluation(row, Evaluation(artifacts[node.fingerprint].path))
                for row, node in zip(whole, _evaluations(recipe), strict=True)
            ]
            add_evidence(evidence, recipe, artifacts)
        rows += recipe_rows
        results += recipe_results
    if incomplete:
        others = len(incomplete) - 1
        counted = "1 more recipe is" if others == 1 else f"{others} more recipes are"
        more = f"; {counted} incomplete" if others else ""
        raise UserError(f"report: {incomplete[0]}{more}")
    return Finished(rows, results, verdicts, evidence, runs, recipes_from_outcomes)


def _evaluations(recipe: Recipe) -> list[Node]:
    return [node for node in recipe.nodes if isinstance(node.stage, EvaluateStage)]


def _look_up(recipe: Recipe, store: Store, artifacts: dict[str, Record]) -> list[str]:
    """Add a recipe's artifacts, and name what a report needs of them and the store lacks."""
    # The evaluations and the policies that they are of: a report needs nothing else.
    needed = [one for node in _evaluations(recipe) for one in (*node.inputs.values(), node)]
    for node in needed:
        known = artifacts.get(node.fingerprint)
        if record := known or store.lookup(node.stage.name, node.fingerprint):
            artifacts[node.fingerprint] = record
    lacking = [node.name for node in needed if node.fingerprint not in artifacts]
    for node in [] if lacking else recipe.nodes:
        if (record := store.record(node.stage.name, node.fingerprint)) is not None:
            artifacts.setdefault(node.fingerprint, record)
    return lacking


def of_recipe(outcomes: Outcomes, recipe: Recipe) -> Outcomes | None:
    """The outcomes of a recipe, if these very policies were evaluated as it says; else None."""
    wanted = {}
    for node in recipe.nodes:
        if isinstance(node.stage, EvaluateStage):
            if node.fingerprint not in outcomes.evidence.nodes:
                return None
            wanted[_policy_name(node), node.stage.benchmark_name] = _policy_fingerprint(node)
    pairs = [
        (row, result)
        for row, result in zip(outcomes.rows, outcomes.results, strict=True)
        if (row.variant, row.seed) == (recipe.variant, recipe.root.seed)
    ]
    if wanted != {
        (row.stage, row.benchmark): row.fingerprint for row, _ in pairs if row.domain is None
    }:
        return None
    known = outcomes.evidence.nodes
    names = [node.fingerprint for node in recipe.nodes if node.fingerprint in known]
    return Outcomes(
        [row for row, _ in pairs],
        [result for _, result in pairs],
        Evidence(nodes={name: known[name] for name in names}),
        outcomes.verdicts,
    )


def results_of(
    recipe: Recipe, artifacts: Mapping[str, Record]
) -> tuple[Sequence[Row], Sequence[StageResult]]:
    """Rows and verdicts of a finished recipe.

    `artifacts` has, by fingerprint, those of the evaluations and of the policies they are of.
    """
    rows: list[Row] = []
    results: list[StageResult] = []
    for node in recipe.nodes:
        if not isinstance(node.stage, EvaluateStage):
            continue
        metrics, policy = artifacts[node.fingerprint].metrics, node.inputs.get(Policy.kind)
        trained: Mapping[str, Any] = {"train_tokens": 0, "wall_s": 0.0}
        if policy is not None:
            trained = artifacts[policy.fingerprint].metrics
        samples = Evaluation(artifacts[node.fingerprint].path).samples(node.stage.benchmark.samples)
        about: dict[str, Any] = {
            "variant": recipe.variant,
            "stage": _policy_name(node),
            "seed": recipe.root.seed,
            "benchmark": node.stage.benchmark_name,
            "fingerprint": _policy_fingerprint(node),
        }
        result = StageResult(**about, **samples._asdict())
        row = Row(
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
        of_domains = result.by_domain()
        results += [result, *of_domains]
        rows += [row, *(row.of_domain(part) for part in of_domains)]
    return rows, results


def _policy_name(node: Node) -> str:
    """What the policy that an evaluation measures is called."""
    return node.name.rpartition("/")[0]


def _policy_fingerprint(node: Node) -> str:
    """What names the policy that an evaluation measures."""
    if (policy := node.inputs.get(Policy.kind)) is not None:
        return policy.fingerprint
    # A checkpoint that was taken as it is has no artifact; what it is decides its name.
    return fingerprint({"model": node.identity["groups"]["model"]})


def add_evidence(evidence: Evidence, recipe: Recipe, artifacts: Mapping[str, Record]) -> None:
    """Add what stands behind a finished recipe's numbers; `artifacts` as for `results_of`."""
    seed, variant = recipe.root.seed, recipe.variant
    about: dict[str, Any] = {"variant": variant_label(variant), "seed": seed}
    title = f"{about['variant']}, seed {seed}"
    # Where a run lies is nothing that a reader elsewhere can use.
    elsewhere = ("hydra.", "hydra/", "paths.")
    words = [word for word in recipe.overrides if not word.startswith(elsewhere)]
    evidence.commands.append(shlex.join(["reasoning-lab", *words]))
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
            prompt_overlap(record) if record else None,
            **_provenance(record),
            variant=about["variant"],
        )
        if record is None:
            continue
        if isinstance(node.stage, EvaluateStage):
            of_policy = {**about, "stage": _policy_name(node)}
            evidence.completions.append(
                Completions(record.path, {**of_policy, "benchmark": node.stage.benchmark_name})
            )
        elif record.kind == Policy.kind:
            evidence.trainings.append(Training(record.path, {**about, "stage": node.name}))


def _provenance(record: Record | None) -> dict[str, Any]:
    """When, on what and by which code an artifact was made."""
    if record is None:
        return {}
    recorded = {name: record.metrics.get(name) for name in ("finished_at", "hardware", "commit")}
    return {**recorded, "versions": dict(record.versions)}


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
    whole = [one for one in (*claims.stages, *claims.variants) if one.domain is None]
    for sentence in sentences(whole):
        console.print(sentence.replace("**", ""), markup=False, soft_wrap=True)
    console.print(f"Report: {paths['html']}, {paths['markdown'].name}", soft_wrap=True)
    return Report(rows, claims, paths)


def main(arguments: Sequence[str]) -> None:
    """Report a recipe, or every combination of swept overrides, from the store.

    `path=FOLDER` reports an experiment from its outcomes, and `outcomes=FOLDER` writes them.
    """
    (path, outcomes), words = take_values(arguments, "path", "outcomes")
    if not path:
        report_recipes(recipes(to_sweep(words)), Path(outcomes) if outcomes else None)
        return
    (runs,), others = take_values(words, "paths.runs")
    if others or outcomes not in ("", path):
        word = others[0] if others else f"outcomes={outcomes}"
        raise UserError(
            f"{word}: path={path} reports the outcomes that lie there; beside it stand only "
            f"paths.runs=FOLDER and outcomes={path}, which computes its {EXPECTED} anew"
        )
    if outcomes:
        update_expected(Path(outcomes))
    report_outcomes(Path(path), Path(runs or PathsConfig().runs))
