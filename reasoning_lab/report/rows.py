"""The data of a report: a row for each policy and benchmark, and its verified samples.

Place in the flow: evaluation artifacts become `Row` and `StageResult`; `comparisons` pairs
results problem by problem; `write_report` writes the files. A benchmark whose problems are of
several domains has a row and a result for each domain too, which are named `benchmark/domain`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from reasoning_lab.evaluate.statistics import over_seeds, pass_at_1
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
        measured: Further metrics of the evaluation, by name; none of a domain.
        domain: The domain that its problems are of, in a benchmark of several; None = all.
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
    domain: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The row with the keys of `report.json`."""
        values = {key: getattr(self, name) for name, key in _JSON_KEYS.items()}
        values["ci95"] = list(self.ci95)
        if self.domain is None:
            del values["domain"]
        return {**values, **self.measured}

    def of_domain(self, result: "StageResult") -> Self:
        """The same policy's row for one of the results that `StageResult.by_domain` gives."""
        estimate, tokens = pass_at_1(result.correct), np.asarray(result.completion_tokens)
        return replace(
            self,
            benchmark=result.benchmark,
            domain=result.domain,
            n=estimate.n,
            pass_at_1=estimate.mean,
            ci95=(estimate.low, estimate.high),
            completion_tokens=float(tokens.mean()) if tokens.any() else None,
            measured={},
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Row":
        """The row of which these are the keys of `report.json`."""
        measured = dict(values)
        known = {name: measured.pop(key) for name, key in _JSON_KEYS.items() if key in measured}
        known["ci95"] = tuple(known["ci95"])
        return cls(**known, measured=measured)


# What each field is called in `report.json`.
_JSON_KEYS = {item.name: item.name for item in fields(Row) if item.name != "measured"} | {
    "pass_at_1": "pass@1"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """Every verified sample of one policy on one benchmark.

    Attributes:
        variant, stage, seed, benchmark, fingerprint: As in `Row`.
        problem_ids: P distinct ids, in any order.
        correct: `[P, S]` bool, True = correct; row p belongs to `problem_ids[p]`.
        completion_tokens: `[P, S]` int, length of each completion.
        domains: The domain of each problem, P; empty = not known.
        domain: As in `Row`.
    """

    variant: str
    stage: str
    seed: int
    benchmark: str
    fingerprint: str
    problem_ids: Sequence[str]
    correct: npt.ArrayLike
    completion_tokens: npt.ArrayLike
    domains: Sequence[str] = ()
    domain: str | None = None

    def by_domain(self) -> list["StageResult"]:
        """The result of each domain, in alphabetical order; empty where there is only one."""
        names = sorted(set(self.domains))
        if len(names) < 2:
            return []
        ids, domains = np.asarray(self.problem_ids), np.asarray(self.domains)
        correct, tokens = np.asarray(self.correct), np.asarray(self.completion_tokens)
        return [
            replace(
                self,
                benchmark=f"{self.benchmark}/{name}",
                problem_ids=ids[domains == name].tolist(),
                correct=correct[domains == name],
                completion_tokens=tokens[domains == name],
                domains=(),
                domain=name,
            )
            for name in names
        ]

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
