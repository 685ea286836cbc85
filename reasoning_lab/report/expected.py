"""What an experiment's page claims, as `expected.json` beside it: what new seeds are held against.

A person writes what to run (`overrides`) and the comparisons, each with a margin and its reason.
All other numbers are computed from `outcomes.parquet` in the same folder, so none is typed in.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reasoning_lab.evaluate.seed_inference import paired_difference_over_seeds, seed_differences
from reasoning_lab.graph.recipe import NO_ABLATION, variant_label
from reasoning_lab.report.outcomes import OUTCOMES, Outcomes, read_outcomes
from reasoning_lab.report.rows import StageResult
from reasoning_lab.system.files import write_atomically
from reasoning_lab.types import UserError

EXPECTED = "expected.json"
# Digits of a computed fraction in the file, and how far another machine's may be from them.
_DIGITS, _TOLERANCE = 6, 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedComparison:
    """A difference that a page claims, and how near new seeds must come to it.

    Attributes:
        benchmark: The benchmark's name.
        stage: Stage of the policy.
        baseline: Stage of the baseline policy.
        variant: Variant of the policy, as in `report.json`; `none` = the full recipe.
        baseline_variant: Variant of the baseline policy.
        margin_points: Differences that are less far apart count as the same, in percentage points;
            between 0 and 100.
        reason: Why that margin, in a line.
        difference: pass@1 of the policy minus that of the baseline, over all seeds of the page;
            None = not computed yet, as for the next.
        seeds_ci95: Its 95% interval over seeds and problems.
    """

    benchmark: str
    stage: str
    baseline: str
    variant: str = NO_ABLATION
    baseline_variant: str = NO_ABLATION
    margin_points: float
    reason: str
    difference: float | None = None
    seeds_ci95: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.margin_points < 100:
            raise ValueError(f"margin_points={self.margin_points} is not between 0 and 100")
        if not self.reason.strip():
            raise ValueError("reason is empty; say in a line why that margin")

    @property
    def label(self) -> str:
        """The two policies in words: stages, or variants with their stages if these differ."""
        if self.variant == self.baseline_variant:
            of = "" if self.variant == NO_ABLATION else f" ({variant_label(self.variant)})"
            return f"{self.stage} against {self.baseline}{of}"
        return (
            f"{variant_label(self.variant)} ({self.stage}) against "
            f"{variant_label(self.baseline_variant)} ({self.baseline})"
        )

    def by_seed(
        self, results: Sequence[StageResult]
    ) -> tuple[dict[int, StageResult], dict[int, StageResult]]:
        """The policy's and the baseline's results, of the seeds that both have, in order.

        Raises:
            UserError: They have none in common.
        """
        mine = [result for result in results if result.benchmark == self.benchmark]
        policies = (self.variant, self.stage), (self.baseline_variant, self.baseline)
        policy, baseline = (
            {one.seed: one for one in mine if (one.variant, one.stage) == name} for name in policies
        )
        seeds = sorted(policy.keys() & baseline.keys())
        if not seeds:
            rows = sorted({f"{one.stage} ({one.variant}, {one.benchmark})" for one in results})
            raise UserError(
                f"{EXPECTED}: no seed has both sides of {self.label} on {self.benchmark}; there "
                f"are {', '.join(rows)}"
            )
        return {seed: policy[seed] for seed in seeds}, {seed: baseline[seed] for seed in seeds}

    def differences(self, results: Sequence[StageResult]) -> npt.NDArray[np.float64]:
        """`[S, P]` float64: the difference in each seed at each problem, sorted by id."""
        policy, baseline = self.by_seed(results)
        return seed_differences(
            *([one.by_problem() for one in side.values()] for side in (policy, baseline))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What `expected.json` says.

    Attributes:
        overrides: What runs the experiment, with its arms and without seeds.
        comparisons: What the page claims.
        seeds: Those of the outcomes.
        seconds_per_seed: What one took, each stage of all arms made once.
    """

    overrides: Sequence[str]
    comparisons: Sequence[ExpectedComparison]
    seeds: Sequence[int] = ()
    seconds_per_seed: float | None = None

    def __post_init__(self) -> None:
        # JSON may have anything here.
        if wrong := [word for word in self.overrides if type(word) is not str]:
            raise ValueError(f"overrides has {wrong[0]!r}, which is no text")
        if not self.comparisons:
            raise ValueError("comparisons is empty")

    def computed(self, outcomes: Outcomes) -> "Expected":
        """The same claims with the numbers that these outcomes give.

        Raises:
            UserError: The outcomes lack a policy of a comparison, or have fewer than two seeds.
        """
        return replace(
            self,
            comparisons=[_computed(one, outcomes.results) for one in self.comparisons],
            seeds=outcomes.seeds,
            seconds_per_seed=round(outcomes.seconds_per_seed),
        )


def read_expected(folder: Path) -> Expected:
    """Read an experiment's `expected.json`.

    Raises:
        UserError: There is none, or it is not what `Expected` describes.
    """
    file = folder / EXPECTED
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; {_BY_HAND}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        expected: Expected = _typed(Expected, content)
        comparisons = [_typed(ExpectedComparison, one) for one in expected.comparisons]
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}; {_BY_HAND}") from error
    return replace(expected, comparisons=comparisons)


def checked_expected(folder: Path) -> tuple[Expected, Outcomes]:
    """What an experiment expects, and the outcomes that it was computed from.

    Raises:
        UserError: One of the files is missing or unreadable, or the numbers are not those that the
            outcomes give.
    """
    expected, outcomes = read_expected(folder), read_outcomes(folder / OUTCOMES)
    computed = expected.computed(outcomes)
    if not _same_numbers(asdict(expected), asdict(computed)):
        raise UserError(
            f"{folder / EXPECTED}: its numbers are not those of {OUTCOMES}; compute them anew with "
            f"`reasoning-lab report path={folder} outcomes={folder}`"
        )
    return expected, outcomes


def update_expected(folder: Path) -> None:
    """Compute the numbers of a folder's `expected.json` anew from its outcomes, if there is one.

    Raises:
        UserError: It is not what `Expected` describes, or does not fit the outcomes.
    """
    if not (folder / EXPECTED).is_file():
        return
    expected = read_expected(folder).computed(read_outcomes(folder / OUTCOMES))
    text = json.dumps(asdict(expected), indent=2) + "\n"
    write_atomically(folder / EXPECTED, partial(Path.write_text, data=text, encoding="utf-8"))


def problem_ids(results: Iterable[StageResult]) -> list[str]:
    """The problems that all of these results answered, sorted.

    Raises:
        UserError: They answered different ones.
    """
    first, *others = (sorted(result.problem_ids) for result in results)
    if any(other != first for other in others):
        raise UserError(
            "The policies of a comparison answered different problems: evaluate all on one set."
        )
    return first


def _computed(comparison: ExpectedComparison, results: Sequence[StageResult]) -> ExpectedComparison:
    later, earlier = comparison.by_seed(results)
    problem_ids([*later.values(), *earlier.values()])
    difference = paired_difference_over_seeds(
        *([result.by_problem() for result in side.values()] for side in (later, earlier))
    )
    return replace(
        comparison,
        difference=round(difference.mean, _DIGITS),
        seeds_ci95=[round(end, _DIGITS) for end in (difference.low, difference.high)],
    )


def _same_numbers(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same_numbers(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same_numbers, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return isclose(a, b, abs_tol=_TOLERANCE)
    return bool(a == b)


_BY_HAND = (
    "it has overrides, and comparisons with benchmark, stage, baseline, margin_points and reason "
    "(experiments/README.md shows one)"
)
_NUMBER, _TEXT, _LIST = (int, float), (str,), (list,)
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("benchmark", "stage", "baseline", "reason"), _TEXT),
    **dict.fromkeys(("variant", "baseline_variant"), _TEXT),
    "margin_points": _NUMBER,
    **dict.fromkeys(("overrides", "comparisons", "seeds"), _LIST),
    # Computed, so they may be missing at first.
    "difference": (*_NUMBER, type(None)),
    "seeds_ci95": (*_LIST, type(None)),
    "seconds_per_seed": (*_NUMBER, type(None)),
}


def _typed(kind: type[Any], values: Any) -> Any:
    """`kind` of these values; ValueError says which is missing, unknown or of another type."""
    if not isinstance(values, dict):
        raise ValueError(f"{values!r} is not an object")
    keys = {field.name: field.default is MISSING for field in fields(kind)}
    if wrong := [name for name in values if name not in keys]:
        raise ValueError(f"there is no key '{wrong[0]}'")
    if missing := [
        name for name, is_required in keys.items() if is_required and name not in values
    ]:
        raise ValueError(f"the key '{missing[0]}' is missing")
    for name, value in values.items():
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise ValueError(f"{name}={value!r} has another type")
    return kind(**values)
