"""The subcommand `reproduce`: an experiment with new seeds, held against what its page claims.

It runs the experiment's arms as a multirun does, so what the store has is reused and a run that was
stopped goes on. Then it compares each difference with the page's (`evaluate/equivalence.py`).
"""

import glob
import json
import shlex
from collections.abc import Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path

from rich.console import Console

from reasoning_lab.commands import hydra_app
from reasoning_lab.commands.arguments import take_values, to_overrides
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.report import finished
from reasoning_lab.commands.sweep import recipes, swept_keys, with_sweep
from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.problem_source import draw_benchmark
from reasoning_lab.evaluate.equivalence import Agreement
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.report.expected import EXPECTED, Expected, checked_expected
from reasoning_lab.report.outcomes import Outcomes
from reasoning_lab.report.reproduction import COLUMNS, of_all, reproduced
from reasoning_lab.report.rows import StageResult
from reasoning_lab.report.table import console_table
from reasoning_lab.system.files import timestamped_folder, write_atomically
from reasoning_lab.types import UserError

# Beside conf/ in a checkout; an installed package has no experiments.
EXPERIMENTS = CONF.parent / "experiments"
_DEFAULT_SEEDS = 2
_MEANING = {
    Agreement.EQUIVALENT: "every difference lies within its margin of the page's",
    Agreement.DIFFERENT: "a difference is not the page's",
    Agreement.UNDECIDED: "these seeds show neither that the page holds nor that it does not",
}


def main(arguments: Sequence[str]) -> None:
    """`NNN`, perhaps `seeds=`, and overrides of the config.

    Raises:
        UserError: There is no such experiment, a seed is the page's own, or a run is impossible.
    """
    name, words = (arguments or [""])[0], arguments[1:]
    (seeds_text,), words = take_values(words, "seeds")
    folder = experiment_folder(name)
    expected, outcomes = checked_expected(folder)
    seeds = new_seeds(seeds_text, expected.seeds)
    overrides = _overrides(expected, to_overrides(words), seeds)
    runs = list(recipes(overrides))
    check_runs(expected, outcomes, runs)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{folder.name}: runs `{shlex.join(['reasoning-lab', '-m', *overrides])}`. A seed of the "
        f"page took {(expected.seconds_per_seed or 0) / 60:,.0f} minutes."
    )
    hydra_app.main(["-m", *overrides])
    done = finished(runs)
    comparisons = reproduced(expected.comparisons, outcomes.results, done.results)
    verdict = of_all([one.agreement for one in comparisons])
    content = {
        "experiment": folder.name,
        "verdict": str(verdict),
        "page_seeds": list(expected.seeds),
        "seeds": seeds,
        "comparisons": [one.as_json() for one in comparisons],
    }
    file = timestamped_folder(done.runs / "reproductions") / "reproduce.json"
    file.parent.mkdir(parents=True)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(file, partial(Path.write_text, data=text, encoding="utf-8"))
    title = f"{folder.name}, seeds {_listed(seeds)} against {_listed(expected.seeds)}"
    console.print(console_table(title, COLUMNS, [one.cells() for one in comparisons]))
    for sentence in filter(None, (one.remedy() for one in comparisons)):
        console.print(sentence)
    console.print(f"{folder.name} is {verdict}: {_MEANING[verdict]}. All numbers: {file}")


def experiment_folder(name: str) -> Path:
    """The experiment that a number, a name or a folder stands for.

    Raises:
        UserError: There is none, or it has no `expected.json`; it lists those that have one.
    """
    listed = sorted(path.parent.name for path in EXPERIMENTS.glob(f"*/{EXPECTED}"))
    remedy = f"with an {EXPECTED} there are {', '.join(listed) or 'none'}"
    if not name or "=" in name or name.startswith("-"):
        raise UserError(f"reproduce: name an experiment first, as in reproduce 001; {remedy}")
    folders = [Path(name)] if Path(name).is_dir() else []
    folders = folders or sorted(EXPERIMENTS.glob(f"{glob.escape(name)}*/"))
    folders = [path for path in folders if path.name == name] or folders
    if not folders:
        raise UserError(f"reproduce {name}: there is no such experiment or folder; {remedy}")
    if len(folders) > 1:
        names = ", ".join(path.name for path in folders)
        raise UserError(f"reproduce {name}: this may be any of {names}; write more of its name")
    (folder,) = folders
    if not (folder / EXPECTED).is_file():
        raise UserError(f"reproduce {name}: {folder} has no {EXPECTED}; {remedy}")
    return folder


def new_seeds(text: str, used: Sequence[int]) -> list[int]:
    """The seeds that `seeds=A,B` names; without it, the lowest two that the page did not use.

    Raises:
        UserError: One is no whole number, is named twice, or is one of the page's.
    """
    if not text:
        return list(islice((seed for seed in count() if seed not in used), _DEFAULT_SEEDS))
    words = text.split(",")
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise UserError(f"seeds={text}: name different whole numbers, as in seeds=8,9")
    seeds = [int(word) for word in words]
    if known := sorted(set(seeds) & set(used)):
        raise UserError(
            f"seeds={text}: the page has used {_listed(known)}; name seeds other than "
            f"{_listed(used)}, or leave seeds out"
        )
    return seeds


def _overrides(expected: Expected, words: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """What runs every arm with the new seeds; `words` are the user's."""
    swept = swept_keys(words)
    if wrong := [word for word in words if word.startswith(("seed=", "experiment=", "ablate="))]:
        raise UserError(
            f"{wrong[0]}: reproduce runs what {EXPECTED} names; seeds are chosen by seeds=A,B"
        )
    if swept:
        raise UserError(f"{swept[0]}: give one value; reproduce sweeps over arms and seeds alone")
    return with_sweep([*expected.overrides, *words, f"seed={','.join(map(str, seeds))}"])


def check_runs(expected: Expected, outcomes: Outcomes, runs: Sequence[Recipe]) -> None:
    """Look whether runs would end in what the page compares, on the page's problems.

    Raises:
        UserError: They would not.
    """
    evaluated = {
        (run.variant, node.name.rpartition("/")[0], node.stage.benchmark_name): run
        for run in runs
        for node in run.nodes
        if isinstance(node.stage, EvaluateStage)
    }
    draws: dict[tuple[str, str], set[str]] = {}
    for result in _compared(expected, outcomes):
        # A domain's problems are among those of its benchmark.
        benchmark = result.benchmark.partition("/")[0]
        place = (result.variant, result.stage, benchmark)
        if place not in evaluated:
            raise UserError(
                f"{EXPECTED}: with these overrides nothing evaluates {result.stage} of "
                f"'{result.variant}' on {result.benchmark}; leave out those that change stages, "
                "arms or benchmarks"
            )
        key = (result.variant, benchmark)
        if key not in draws:
            draws[key] = _problem_ids(evaluated[place], benchmark)
        if missing := len(set(result.problem_ids) - draws[key]):
            raise UserError(
                f"benchmarks.{benchmark}: it lacks {missing} of the page's "
                f"{len(result.problem_ids)} problems, and new seeds must answer the same ones; "
                "leave out overrides of data and benchmarks, or run the commit that the page names"
            )


def _compared(expected: Expected, outcomes: Outcomes) -> list[StageResult]:
    """A result of each policy that the page compares."""
    sides = [side for one in expected.comparisons for side in one.by_seed(outcomes.results)]
    return [next(iter(side.values())) for side in sides]


def _problem_ids(recipe: Recipe, name: str) -> set[str]:
    """The problems that a recipe's benchmark draws."""
    source = recipe.benchmark_sources.get(name, recipe.source)
    return {problem.id for problem in draw_benchmark(source, recipe.root.benchmarks[name])}


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
