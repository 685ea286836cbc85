"""The report's files: exact keys, numbers worked out by hand, a figure that opens."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from reasoning_lab.evaluate.statistics import paired_difference
from reasoning_lab.report import (
    Row,
    StageResult,
    console_means,
    console_table,
    stage_differences,
    stage_means,
    write_report,
)
from reasoning_lab.types import UserError

ROW = Row(
    variant="none",
    stage="sft",
    seed=0,
    benchmark="arithmetic",
    n=1250,
    samples=4,
    pass_at_1=0.4621,
    ci95=(0.4287, 0.4955),
    completion_tokens=83.26,
    train_tokens=1_234_567,
    wall_s=219.4,
    fingerprint="0123456789abcdef",
)
IDS = ["p3", "p1", "p2", "p0"] * 10


def _result(stage: str, right: int, seed: int = 0, ids: str = "p") -> StageResult:
    """40 problems with one sample; the first `right` of them correct."""
    return StageResult(
        variant="none",
        stage=stage,
        seed=seed,
        benchmark="arithmetic",
        problem_ids=[f"{ids}{number:02d}" for number in range(40)],
        correct=np.arange(40)[:, None] < right,
    )


def _changed(**changes: object) -> Row:
    return dataclasses.replace(ROW, **changes)  # type: ignore[arg-type]


def test_json_has_exactly_the_agreed_keys(tmp_path: Path) -> None:
    paths = write_report([ROW], stage_differences([_result("sft", 5), _result("dpo", 9)]), tmp_path)
    content = json.loads(paths["json"].read_text())
    assert list(content) == ["rows", "differences"]
    assert content["rows"] == [
        {
            "variant": "none",
            "stage": "sft",
            "seed": 0,
            "benchmark": "arithmetic",
            "n": 1250,
            "samples": 4,
            "pass@1": 0.4621,
            "ci95": [0.4287, 0.4955],
            "completion_tokens": 83.26,
            "train_tokens": 1234567,
            "wall_s": 219.4,
            "fingerprint": "0123456789abcdef",
        }
    ]
    (difference,) = content["differences"]
    assert set(difference) == {
        *("variant", "benchmark", "stage", "baseline", "seeds"),
        *("n", "difference", "ci95", "p_value"),
    }
    assert difference["difference"] == pytest.approx(4 / 40)


def test_markdown_shows_the_numbers(tmp_path: Path) -> None:
    text = write_report([ROW], [], tmp_path)["markdown"].read_text()
    assert (
        "| stage | benchmark | pass@1 | 95% interval | n | samples | completion tokens "
        "| train tokens | seconds |\n" in text
    )
    assert "| sft | arithmetic | 46.2% | 42.9–49.5% | 1,250 | 4 | 83.3 | 1,234,567 | 219 |" in text
    assert "](ladder.png)" in text
    assert (tmp_path / "ladder.png").is_file()


def test_variant_and_seed_appear_where_they_differ(tmp_path: Path) -> None:
    rows = [ROW, _changed(seed=1), _changed(variant="without|dpo")]
    text = write_report(rows, [], tmp_path)["markdown"].read_text()
    assert "| variant | seed | stage |" in text
    assert "| without\\|dpo | 0 | sft |" in text


def test_differences_are_told_in_words(tmp_path: Path) -> None:
    """24 of 40 problems are gained: 60 points, 2^-23 by signs, so p < 0.001."""
    results = [_result("pretrain", 4), _result("sft", 28), _result("dpo", 29)]
    text = write_report([ROW], stage_differences(results), tmp_path)["markdown"].read_text()
    assert (
        "**sft** gains 60.0 points over **pretrain** (95% interval +44.1 to +75.9, p < 0.001"
        in (text)
    )
    assert "**dpo** and **sft** cannot be told apart: +2.5 points" in text
    assert "p = 1.000, n = 40)" in text


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    comparisons = stage_differences([_result("sft", 28), _result("dpo", 4)])
    text = write_report([ROW], comparisons, tmp_path)["markdown"].read_text()
    assert "**dpo** loses 60.0 points over **sft**" not in text
    assert "**dpo** loses 60.0 points against **sft**" in text


def test_which_stages_are_compared() -> None:
    results = [_result(stage, right) for right, stage in enumerate(("a", "b", "c", "d"), start=3)]
    pairs = [(d.baseline, d.stage) for d in stage_differences(results)]
    assert pairs == [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("b", "d")]


def test_only_the_same_problems_are_compared() -> None:
    assert stage_differences([_result("sft", 5), _result("dpo", 9, ids="q")]) == []


def test_problems_are_paired_by_id_not_by_place() -> None:
    sft = _result("sft", 17)
    order = np.random.default_rng(0).permutation(40)
    shuffled = dataclasses.replace(
        sft,
        stage="dpo",
        problem_ids=[sft.problem_ids[place] for place in order],
        correct=np.asarray(sft.correct)[order],
    )
    (comparison,) = stage_differences([sft, shuffled])
    assert (comparison.difference.mean, comparison.difference.p_value) == (0.0, 1.0)
    assert comparison.difference.high == pytest.approx(1 - 0.025 ** (1 / 40))


def test_seeds_are_pooled_and_told(tmp_path: Path) -> None:
    """Seed 0 gains 4 problems, seed 1 gains 8, of 40: 15 points; seed 2 lacks one stage."""
    results = [_result("sft", 10), _result("sft", 10, seed=1), _result("sft", 10, seed=2)]
    results += [_result("rl", 14), _result("rl", 18, seed=1)]
    (comparison,) = stage_differences(results)
    a = np.stack([np.arange(40) < 14, np.arange(40) < 18], axis=1)
    b = np.stack([np.arange(40) < 10] * 2, axis=1)
    assert comparison.seeds == (0, 1)
    assert comparison.difference == paired_difference(a, b)
    assert comparison.difference.mean == pytest.approx(0.15)
    assert "n = 40, 2 seeds)" in write_report([ROW], [comparison], tmp_path)["markdown"].read_text()


def test_mean_over_seeds(tmp_path: Path) -> None:
    """10 and 18 of 40: 25% and 45%, together 35%; a stage with one seed has no mean."""
    results = [_result("sft", 10), _result("sft", 18, seed=1), _result("rl", 30)]
    (mean,) = stage_means(results)
    assert mean.stage == "sft"
    assert mean.by_seed == {0: 0.25, 1: 0.45}
    assert mean.estimate.mean == pytest.approx(0.35)
    assert (mean.estimate.n, mean.estimate.samples) == (40, 2)
    paths = write_report([ROW], [], tmp_path, [mean])
    page = paths["markdown"].read_text()
    assert "| sft | arithmetic | 35.0% |" in page
    assert "| 25.0%, 45.0% |" in page
    assert json.loads(paths["json"].read_text())["means"][0]["by_seed"] == {"0": 0.25, "1": 0.45}
    console = Console(width=100, record=True)
    console.print(console_means([mean]))
    assert "35.0%" in console.export_text()


def test_mean_over_seeds_needs_the_same_problems() -> None:
    with pytest.raises(UserError, match="answered different problems"):
        stage_means([_result("sft", 5), _result("sft", 5, seed=1, ids="q")])


def test_two_results_of_one_stage_and_seed_are_refused() -> None:
    with pytest.raises(UserError, match="two results"):
        stage_differences([_result("sft", 5), _result("sft", 6)])


def test_repeated_problem_ids_are_refused() -> None:
    repeated = dataclasses.replace(_result("sft", 5), problem_ids=IDS)
    with pytest.raises(UserError, match="one row for each distinct problem"):
        stage_differences([repeated, dataclasses.replace(repeated, stage="dpo")])


@pytest.mark.parametrize("variants", [1, 4])
@pytest.mark.parametrize("benchmarks", [1, 3])
def test_the_figure_is_a_readable_image(tmp_path: Path, variants: int, benchmarks: int) -> None:
    rows = [
        _changed(variant=f"v{v}", benchmark=f"b{b}", stage=stage, seed=seed)
        for v in range(variants)
        for b in range(benchmarks)
        for stage in ("pretrain", "sft", "rl")
        for seed in (0, 1)
    ]
    image = imread(write_report(rows, [], tmp_path)["figure"])
    height, width = image.shape[:2]
    assert 600 <= height <= 2400
    assert 900 <= width <= 3600
    inked = (image[..., :3] < 0.95).any(axis=-1).mean()
    assert 0.005 < inked < 0.5


def test_a_stage_that_a_variant_lacks_leaves_a_gap(tmp_path: Path) -> None:
    rows = [_changed(stage=stage) for stage in ("pretrain", "sft", "rl")]
    rows += [_changed(variant="sft", stage=stage) for stage in ("pretrain", "rl")]
    assert imread(write_report(rows, [], tmp_path)["figure"]).size > 0


def test_rewriting_replaces_and_leaves_no_draft(tmp_path: Path) -> None:
    write_report([ROW], [], tmp_path)
    write_report([_changed(pass_at_1=0.9, ci95=(0.8, 0.95))], [], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("ladder.png", "report.json", "report.md")
    ]
    assert "90.0%" in (tmp_path / "report.md").read_text()


def test_a_number_that_is_none_stops_before_any_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report([_changed(pass_at_1=float("nan"))], [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no evaluation to report"):
        write_report([], [], tmp_path)


def test_the_console_table_never_cuts_a_number() -> None:
    rows = [_changed(variant="without-midtrain"), _changed(seed=1, benchmark="number-theory-hard")]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(console_table(rows))
    for number in ("46.2%", "42.9–49.5%", "1,250", "83.3", "1,234,567", "219"):
        assert captured.get().count(number) == 2
