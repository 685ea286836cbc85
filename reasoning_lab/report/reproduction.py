"""New seeds held against what a page claims: a row for each comparison, and one word for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.evaluate.equivalence import Agreement, Shift, seeds_needed, shift_between
from reasoning_lab.evaluate.statistics import holm
from reasoning_lab.report.expected import ExpectedComparison, problem_ids
from reasoning_lab.report.rows import StageResult

COLUMNS = ("policy", "benchmark", "page", "new seeds", "shift", "90% interval", "margin", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """One comparison of a page, by new seeds.

    Attributes:
        comparison: What the page claims.
        difference: The same difference over the new seeds; fraction.
        shift: How much larger it is than the page's.
        p_corrected: The shift's p-value, corrected for all comparisons of the page.
        agreement: Equivalent, different or undecided.
        seeds_needed: With how many new seeds, more than these, an unchanged recipe is found
            equivalent in four of five cases; None = no number is enough beside the page's seeds.
        seeds_needed_of_both: The same where the page has as many; None = 1,000 are not enough.
    """

    comparison: ExpectedComparison
    difference: float
    shift: Shift
    p_corrected: float
    agreement: Agreement
    seeds_needed: int | None
    seeds_needed_of_both: int | None

    def as_json(self) -> dict[str, Any]:
        """The comparison with the keys of `reproduce.json`; fractions but for the margin."""
        claim = self.comparison
        return {
            "benchmark": claim.benchmark,
            "variant": claim.variant,
            "stage": claim.stage,
            "baseline_variant": claim.baseline_variant,
            "baseline": claim.baseline,
            "page_difference": claim.difference,
            "difference": self.difference,
            "shift": self.shift.mean,
            "ci90": list(self.shift.ci90),
            "ci95": list(self.shift.ci95),
            "p_value": self.shift.p_value,
            "p_corrected": self.p_corrected,
            "seed_deviation": self.shift.seed_deviation,
            "margin_points": claim.margin_points,
            "verdict": str(self.agreement),
            "seeds_needed": self.seeds_needed,
            "seeds_needed_of_both": self.seeds_needed_of_both,
        }

    def cells(self) -> list[str]:
        """The cells of `COLUMNS`, in percentage points."""
        claim = self.comparison
        low, high = self.shift.ci90
        return [
            claim.label,
            claim.benchmark,
            _points(claim.difference or 0.0),
            _points(self.difference),
            _points(self.shift.mean),
            f"{_points(low)} to {_points(high)}",
            f"±{claim.margin_points:g}",
            str(self.agreement),
        ]

    def remedy(self) -> str:
        """What would decide it, in a sentence; empty if it is decided."""
        if self.agreement is not Agreement.UNDECIDED:
            return ""
        claim = self.comparison
        subject = f"{claim.label} on {claim.benchmark} is undecided"
        if self.seeds_needed is not None:
            return (
                f"{subject}: with {self.seeds_needed} new seeds, an unchanged recipe is found "
                "equivalent in four of five cases."
            )
        if self.seeds_needed_of_both is not None:
            return (
                f"{subject}: the page has too few seeds for ±{claim.margin_points:g} points; it "
                f"takes {self.seeds_needed_of_both} on the page and as many new ones."
            )
        return f"{subject}: more seeds do not decide it; evaluate on more problems."


def reproduced(
    comparisons: Sequence[ExpectedComparison],
    page: Sequence[StageResult],
    new: Sequence[StageResult],
) -> list[Reproduced]:
    """Hold new seeds against the page, comparison by comparison.

    Raises:
        UserError: A policy is missing, or the new seeds answered other problems than the page's.
    """
    shifts = []
    for claim in comparisons:
        sides = [side for results in (page, new) for side in claim.by_seed(results)]
        problem_ids([result for side in sides for result in side.values()])
        earlier, later = claim.differences(page), claim.differences(new)
        shifts.append((claim, earlier, later, shift_between(earlier, later)))
    corrected = holm([shift.p_value for *_, shift in shifts])
    return [
        Reproduced(
            comparison=claim,
            difference=float(later.mean()),
            shift=shift,
            p_corrected=p,
            agreement=shift.agreement(claim.margin_points / 100, p),
            seeds_needed=seeds_needed(
                shift.seed_deviation, claim.margin_points / 100, len(earlier), len(later) + 1
            ),
            seeds_needed_of_both=seeds_needed(
                shift.seed_deviation, claim.margin_points / 100, None, len(later) + 1
            ),
        )
        for (claim, earlier, later, shift), p in zip(shifts, corrected, strict=True)
    ]


def of_all(agreements: Sequence[Agreement]) -> Agreement:
    """The word for a page: different if one comparison is, equivalent if every one is."""
    if Agreement.DIFFERENT in agreements:
        return Agreement.DIFFERENT
    if all(one is Agreement.EQUIVALENT for one in agreements):
        return Agreement.EQUIVALENT
    return Agreement.UNDECIDED


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"
