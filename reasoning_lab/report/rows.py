"""The data of a report: a row for each policy and benchmark, and its verified samples.

Place in the flow: evaluation artifacts become `Row` and `StageResult`; `comparisons` pairs
results problem by problem; `write_report` writes the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from reasoning_lab.evaluate.statistics import over_seeds
from reasoning_lab.types import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy on one benchmark; all numbers of the table come from here.

    Attributes:
        variant: The recipe's name, or the stage that it lacks.
        stage: The stage that trained the policy.
        seed: The recipe's seed.
        benchmark: The benchmark's name.
        n: Problems.
        samples: Completions of each problem.
        pass_at_1: Fraction in [0, 1]; `pass@1` in the file.
        ci95: Ends of the 95% interval.
        completion_tokens: Mean length of a completion, in tokens; None = unknown.
        train_tokens: Tokens that the stage trained on; 0 for a base model.
        wall_s: Seconds that the stage took.
        fingerprint: The policy's artifact.
        measured: Further metrics of the evaluation, by name.
    """

    variant: str
    stage: str
    seed: int
    benchmark: str
    n: int
    samples: int
    pass_at_1: float
    ci95: tuple[float, float]
    completion_tokens: float | None
    train_tokens: int
    wall_s: float
    fingerprint: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The row with the keys of `report.json`."""
        keys = {item.name: item.name for item in fields(self)} | {"pass_at_1": "pass@1"}
        values = {key: getattr(self, name) for name, key in keys.items()}
        values["ci95"] = list(self.ci95)
        del values["measured"]
        return {**values, **self.measured}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """Every verified sample of one policy on one benchmark.

    Attributes:
        variant, stage, seed, benchmark, fingerprint: As in `Row`.
        problem_ids: P distinct ids, in any order.
        correct: `[P, S]` bool, True = correct; row p belongs to `problem_ids[p]`.
        completion_tokens: `[P, S]` int, length of each completion.
    """

    variant: str
    stage: str
    seed: int
    benchmark: str
    fingerprint: str
    problem_ids: Sequence[str]
    correct: npt.ArrayLike
    completion_tokens: npt.ArrayLike

    def by_problem(self) -> npt.NDArray[np.bool_]:
        """`[P, S]` bool, sorted by problem id.

        Raises:
            UserError: The ids repeat, don't match the rows, or a sample is missing.
        """
        verified = over_seeds([self.correct])
        if len(verified) != len(self.problem_ids) or len(set(self.problem_ids)) != len(verified):
            raise UserError(
                f"The results of stage '{self.stage}' on '{self.benchmark}' don't have one row "
                "for each distinct problem: evaluate it again."
            )
        return verified[np.argsort(np.asarray(self.problem_ids))]
