"""The subcommand `doctor`: is a model, with its template and engine, what training assumes?"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from reasoning_lab.commands.arguments import split_config_dir, take_values, to_overrides
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.evaluate import model_options, with_model
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.data.sources.problem_source import draw_benchmark
from reasoning_lab.doctor.check import Check, Examined, State, run_checks
from reasoning_lab.doctor.checks import CHECKS
from reasoning_lab.doctor.model_under_test import ContextDemand, ModelUnderTest
from reasoning_lab.launch.job import quiet_libraries
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify import build_verifier

# Of each benchmark, and of each draw of a stage.
_DRAWN_PROBLEMS = 8
_LIST = "--list"
_PAGE = f"""\
# What `reasoning-lab doctor` checks

`reasoning-lab doctor --list` prints this page. Each of {len(CHECKS)} checks has a public report.
A test puts its bug into a sound checkpoint, and sees that this check names it and no other does.
That of `vllm-differs` needs vLLM, and runs with `make test-vllm`.

| check | what goes wrong | reported at |
|:--|:--|:--|"""
# Without one of these a model is looked at for evaluation alone.
_CHOOSE_STAGES = ("recipe=", "experiment=")
_CHOOSE_MODEL = ("model=", "model.path=", *_CHOOSE_STAGES)


def main(arguments: Sequence[str]) -> None:
    """Overrides of the config, as for a run; exits with 1 where something is wrong.

    Raises:
        UserError: The overrides name several models, none that exists, or one of a server.
    """
    if _LIST in arguments:
        print(list_page())
        return
    quiet_libraries()
    recipe = _composed(arguments)
    states = {
        examined.check.name: _print(f"[{number} of {len(CHECKS)}]", examined)
        for number, examined in enumerate(examine(recipe), 1)
    }
    to_mend = [name for name, state in states.items() if state in (State.WRONG, State.FAILED)]
    if to_mend:
        print(f"To mend: {', '.join(to_mend)}.")
    counts = (f"{count} {state}" for state in State if (count := [*states.values()].count(state)))
    print(f"{recipe.root.model.path}: {', '.join(counts)}.")
    if to_mend:
        sys.exit(1)


def examine(recipe: Recipe) -> Iterator[Examined]:
    """Run every check on a recipe's model; yields each one as it ends.

    Raises:
        UserError: The recipe has no model to look at, or one of a server.
    """
    root = recipe.root
    if root.engine is not None and not root.engine.loads_checkpoints:
        raise UserError(
            "engine: doctor reads a checkpoint, and a server shows none; leave the engine out, and "
            "name the checkpoint that it serves by model="
        )
    if root.model.path is None:
        raise UserError(
            "doctor: this model is trained from scratch, so there is nothing to look at yet; name "
            "one, as in doctor model=FOLDER, or the fingerprint of a stored policy"
        )
    with build_verifier(root.hardware) as verifier:
        problems, demands = list(sample_problems(recipe)), list(context_demands(root))
        model = ModelUnderTest(root.model, root.hardware, problems, demands, verifier)
        yield from run_checks(CHECKS, model)


def list_page() -> str:
    """Every check as a page in Markdown."""
    rows = [f"| `{check.name}` | {check.goes_wrong} | {_link(check)} |" for check in CHECKS]
    return "\n".join([_PAGE, *rows])


def _link(check: Check) -> str:
    """The report's repository and number, as GitHub writes them."""
    owner, name, _, number = check.source.removeprefix("https://github.com/").split("/")
    return f"[{owner}/{name}#{number}]({check.source})"


def _composed(arguments: Sequence[str]) -> Recipe:
    config_dir, words = split_config_dir(arguments)
    if not any(word.startswith(_CHOOSE_MODEL) for word in words):
        raise UserError("doctor: name what to look at, as in doctor model=FOLDER")
    if take_values(words, "model")[0][0]:
        words = with_model(words, model_options(config_dir))
    if not any(word.startswith(_CHOOSE_STAGES) for word in words):
        words = ["recipe=evaluate", *words]
    flags = [] if config_dir is None else ["--config-dir", config_dir]
    composed = list(recipes(to_overrides([*flags, *words])))
    if len(composed) > 1:
        raise UserError("doctor: it looks at one model at a time; give one value of each key")
    return composed[0]


def sample_problems(recipe: Recipe) -> Iterator[Problem]:
    """A few problems of each benchmark and stage, where their data is on this machine."""
    for name, benchmark in recipe.root.benchmarks.items():
        source = recipe.benchmark_sources.get(name, recipe.source)
        if source.is_local():
            few = min(benchmark.known_count or _DRAWN_PROBLEMS, _DRAWN_PROBLEMS)
            yield from draw_benchmark(source, replace(benchmark, count=few))
    if not recipe.source.is_local():
        return
    for name, stage in recipe.root.stages.items():
        for draw in stage.problem_draws(f"stages.{name}"):
            if draw.benchmark is None:
                few = min(draw.count or _DRAWN_PROBLEMS, _DRAWN_PROBLEMS)
                yield from recipe.source.problems(draw.split, draw.levels, few, recipe.root.seed)


def context_demands(root: RootConfig) -> Iterator[ContextDemand]:
    """What stages and benchmarks ask of a context."""
    for name, benchmark in root.benchmarks.items():
        key = f"benchmarks.{name}.sampling.max_new_tokens"
        yield ContextDemand(key, benchmark.sampling.completion_tokens, after_prompt=True)
    for name, stage in root.stages.items():
        yield from _demands_of(f"stages.{name}", stage)


def _demands_of(key: str, stage: LabStage) -> Iterator[ContextDemand]:
    written, limit = stage.workload().written, stage.document_limit(key)
    if written is not None:
        yield ContextDemand(key, written.tokens, after_prompt=True)
    if limit is not None:
        yield ContextDemand(limit.key, limit.tokens, after_prompt=False)


def _print(number: str, examined: Examined) -> State:
    """A line for the check as it ends, and one for what it says."""
    check, result = examined.check, examined.result
    row = f"{number:<10} {check.name:<30} {result.state:<16} {examined.wall_s:5.1f} s"
    print(row, flush=True)
    if result.sentence:
        print(f"    {result.sentence}")
    if result.state is State.WRONG:
        print(f"    {check.goes_wrong} Reported at {check.source}")
    return result.state
