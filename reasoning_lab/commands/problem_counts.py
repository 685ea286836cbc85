"""How many problems `all` is where the data is at hand, and what a protocol makes of it."""

from collections.abc import Mapping

from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.problems import WHOLE_SPLIT, CountProblems
from reasoning_lab.data.sources.problem_source import ProblemSource, number_of
from reasoning_lab.data.sources.streams import stream_of
from reasoning_lab.evaluate.completion_metrics import completion_metrics
from reasoning_lab.types import Split, UserError


def resolve_counts(
    root: RootConfig, source: ProblemSource, benchmark_sources: Mapping[str, ProblemSource]
) -> None:
    """Put numbers in place of `all`, so that a recipe that says the number is the same recipe.

    Of data that is not on this machine `all` stays, and the stage that draws counts it.

    Args:
        root: Changed in place.
        source: The run's.
        benchmark_sources: Of the benchmarks that have one of their own, by name.

    Raises:
        UserError: There is no such problem, or the source does not say how many there are.
    """
    for name, stage in root.stages.items():
        root.stages[name] = stage.with_counts(f"stages.{name}", _counter(source))
    for name, benchmark in root.benchmarks.items():
        count = _counter(benchmark_sources.get(name, source))
        split, key = Split(benchmark.split), f"benchmarks.{name}.count"
        benchmark.count = count(split, benchmark.levels, benchmark.count, key, WHOLE_SPLIT)


def apply_protocol(root: RootConfig) -> None:
    """Put the protocol in place of each benchmark's own, once their counts are known.

    Raises:
        UserError: A benchmark has no one limit for all policies, or a metric is impossible.
    """
    for name, benchmark in root.benchmarks.items():
        benchmark.check(f"benchmarks.{name}")
        applied = root.benchmarks[name] = root.protocol.applied(benchmark)
        if applied.known_count is None and root.protocol.count is not None:
            applied.count = root.protocol.count
        tokens, key = applied.sampling.max_new_tokens, f"benchmarks.{name}"
        if isinstance(tokens, str):
            raise UserError(
                f"{key}.sampling.max_new_tokens={tokens}: policies are compared under one limit, "
                "so it has to be a number; give one"
            )
        completion_metrics(applied.metrics, tokens, f"{key}.metrics")


def _counter(source: ProblemSource) -> CountProblems:
    if not source.is_local():
        return lambda split, levels, count, key, stream: count
    return lambda split, levels, count, key, stream: number_of(
        stream_of(source, stream, key.removesuffix(".count")), split, levels, count, key
    )
