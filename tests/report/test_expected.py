"""`expected.json`: what a person writes, what is computed, and what new seeds say of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reasoning_lab.evaluate.equivalence import Agreement
from reasoning_lab.evaluate.statistics import holm
from reasoning_lab.report.expected import (
    EXPECTED,
    checked_expected,
    read_expected,
    update_expected,
)
from reasoning_lab.report.outcomes import OUTCOMES, Outcomes, read_outcomes
from reasoning_lab.report.reproduction import of_all, reproduced
from reasoning_lab.types import UserError
from tests.support.outcomes import Policy, write_page

PROBLEMS = 50
CLAIM = {
    "benchmark": "heldout",
    "stage": "rl",
    "baseline": "sft",
    "margin_points": 9,
    "reason": "half of the gain",
}
WRITTEN: dict[str, Any] = {"overrides": ["experiment=toy"], "comparisons": [CLAIM]}


def outcomes_of(folder: Path, right: dict[tuple[str, int], int], problems: int = PROBLEMS) -> None:
    """Of the policies `(stage, seed)`, with so many of the problems solved, the first ones."""
    policies: list[Policy] = [("none", stage, seed) for stage, seed in right]
    prompts = [f"p{number:02d}" for number in range(problems)]
    write_page(
        folder,
        folder / "evaluations",
        policies,
        prompts,
        lambda policy, problem, _: problem < right[policy[1:]],
    )


def write(folder: Path, content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / EXPECTED).write_text(json.dumps(content), encoding="utf-8")


def new_outcomes(folder: Path, right: dict[tuple[str, int], int], problems: int = 50) -> Outcomes:
    outcomes_of(folder, right, problems)
    return read_outcomes(folder / OUTCOMES)


# Gains of 10, 12 and 14 problems of 50.
PAGE = {
    **{("sft", seed): 10 for seed in (0, 1, 2)},
    **{("rl", seed): 20 + 2 * seed for seed in (0, 1, 2)},
}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    outcomes_of(folder, PAGE)
    write(folder, WRITTEN)
    update_expected(folder)
    return folder


def test_numbers_are_computed_from_the_outcomes(page: Path) -> None:
    content = json.loads((page / EXPECTED).read_text())
    (claim,) = content["comparisons"]
    assert claim.items() >= CLAIM.items()
    assert (claim["variant"], claim["baseline_variant"]) == ("none", "none")
    assert claim["difference"] == 0.24
    assert claim["seeds_ci95"][0] < 0.24 - stats.t.isf(0.025, 2) * 0.04 / np.sqrt(3) + 1e-6
    assert content["seeds"] == [0, 1, 2]
    # Six policies of a minute.
    assert content["seconds_per_seed"] == 120
    expected, outcomes = checked_expected(page)
    assert expected.overrides == ["experiment=toy"]
    assert outcomes.seeds == [0, 1, 2]
    again = (page / EXPECTED).read_text()
    update_expected(page)
    assert (page / EXPECTED).read_text() == again


@pytest.mark.parametrize(
    ("key", "value"), [("difference", 0.25), ("seeds_ci95", [0.1, 0.3]), ("difference", None)]
)
def test_a_number_that_was_typed_in_is_refused(page: Path, key: str, value: object) -> None:
    content = json.loads((page / EXPECTED).read_text())
    content["comparisons"][0][key] = value
    write(page, content)
    with pytest.raises(UserError, match=r"its numbers are not those of outcomes\.parquet"):
        checked_expected(page)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], r"\[\] is not an object"),
        ({"comparisons": [CLAIM]}, "the key 'overrides' is missing"),
        ({**WRITTEN, "sedes": [1]}, "there is no key 'sedes'"),
        ({**WRITTEN, "overrides": "experiment=toy"}, "overrides='experiment=toy' has another type"),
        ({**WRITTEN, "overrides": [3]}, "overrides has 3, which is no text"),
        ({**WRITTEN, "comparisons": []}, "comparisons is empty"),
        ({**WRITTEN, "comparisons": [{**CLAIM, "margin_points": 0}]}, "not between 0 and 100"),
        ({**WRITTEN, "comparisons": [{**CLAIM, "margin_points": True}]}, "has another type"),
        ({**WRITTEN, "comparisons": [{**CLAIM, "reason": " "}]}, "reason is empty"),
        ({**WRITTEN, "comparisons": ["rl"]}, "'rl' is not an object"),
    ],
)
def test_a_mistake_in_the_file_ends_in_one_sentence(
    content: object, fault: str, tmp_path: Path
) -> None:
    write(tmp_path, content)
    with pytest.raises(UserError, match=fault) as refusal:
        read_expected(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / EXPECTED}: ")
    assert len(str(refusal.value).splitlines()) == 1


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / EXPECTED).write_text("{")
    with pytest.raises(UserError, match=r"expected\.json: "):
        read_expected(tmp_path)


def test_a_comparison_that_the_outcomes_lack_is_named(page: Path) -> None:
    write(page, {**WRITTEN, "comparisons": [{**CLAIM, "stage": "dpo"}]})
    with pytest.raises(UserError, match=r"dpo against sft on heldout; there are rl \(none, "):
        update_expected(page)


def test_a_folder_without_the_file_is_left_alone(tmp_path: Path) -> None:
    outcomes_of(tmp_path, PAGE)
    update_expected(tmp_path)
    assert not (tmp_path / EXPECTED).exists()


def gains(*of_seeds: int) -> dict[tuple[str, int], int]:
    """Policies of seeds from 5 on whose `rl` solves so many problems more than `sft`."""
    seeds = range(5, 5 + len(of_seeds))
    rl = {("rl", seed): 10 + gain for seed, gain in zip(seeds, of_seeds, strict=True)}
    return {**{("sft", seed): 10 for seed in seeds}, **rl}


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (gains(12, 13), "equivalent"),
        (gains(0, 1), "different"),
        (gains(15, 15), "undecided"),
        (gains(12), "undecided"),
    ],
)
def test_new_seeds_are_held_against_the_page(
    page: Path, tmp_path: Path, right: dict[tuple[str, int], int], verdict: str
) -> None:
    expected, outcomes = checked_expected(page)
    new = new_outcomes(tmp_path / "new", right)
    (one,) = reproduced(expected.comparisons, outcomes.results, new.results)
    assert one.agreement == verdict
    mean = np.mean([n - right["sft", seed] for (stage, seed), n in right.items() if stage == "rl"])
    assert one.difference == pytest.approx(mean / 50)
    assert one.shift.mean == pytest.approx(mean / 50 - 0.24)
    assert bool(one.remedy()) == (verdict == "undecided")
    content = one.as_json()
    assert (content["page_difference"], content["verdict"]) == (0.24, verdict)
    assert one.cells()[0] == "rl against sft"
    assert one.cells()[2:5] == ["+24.0", f"{2 * mean:+.1f}", f"{2 * mean - 24:+.1f}"]


def test_p_values_of_a_page_are_corrected_for_their_number(page: Path, tmp_path: Path) -> None:
    back = {**CLAIM, "stage": "sft", "baseline": "rl"}
    write(page, {**WRITTEN, "comparisons": [CLAIM, back]})
    update_expected(page)
    expected, outcomes = checked_expected(page)
    new = new_outcomes(tmp_path / "new", gains(4, 6))
    there, other = reproduced(expected.comparisons, outcomes.results, new.results)
    assert there.shift.p_value == pytest.approx(other.shift.p_value)
    expected_p = holm([there.shift.p_value, other.shift.p_value])
    assert [there.p_corrected, other.p_corrected] == pytest.approx(expected_p)
    assert there.p_corrected > there.shift.p_value


def test_other_problems_are_refused(page: Path, tmp_path: Path) -> None:
    expected, outcomes = checked_expected(page)
    new = new_outcomes(tmp_path / "new", gains(12, 13), problems=40)
    with pytest.raises(UserError, match="different problems"):
        reproduced(expected.comparisons, outcomes.results, new.results)


@pytest.mark.parametrize(
    ("agreements", "expected"),
    [
        (["equivalent", "equivalent"], "equivalent"),
        (["equivalent", "undecided"], "undecided"),
        (["undecided", "different"], "different"),
    ],
)
def test_one_word_for_a_page(agreements: list[str], expected: str) -> None:
    assert of_all([Agreement(one) for one in agreements]) == expected
