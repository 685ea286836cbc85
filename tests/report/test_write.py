"""The report's files: exact keys, numbers worked out by hand, a figure that opens."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from scipy import stats

from reasoning_lab.evaluate.statistics import paired_difference
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.report.comparisons import (
    Claims,
    stage_differences,
    stage_means,
    variant_differences,
)
from reasoning_lab.report.evidence import Evidence, GraphNode
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.report.table import (
    console_table,
    latex_tables,
    mean_cells,
    row_cells,
    sentence,
)
from reasoning_lab.report.write import write_report
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


def _result(
    stage: str, right: int, seed: int = 0, ids: str = "p", variant: str = "none", policy: str = ""
) -> StageResult:
    """40 problems with one sample; the first `right` of them correct and one token longer."""
    correct = np.arange(40)[:, None] < right
    return StageResult(
        variant=variant,
        stage=stage,
        seed=seed,
        benchmark="arithmetic",
        fingerprint=policy or f"{variant}/{stage}/{seed}",
        problem_ids=[f"{ids}{number:02d}" for number in range(40)],
        correct=correct,
        completion_tokens=10 + correct,
    )


def _written(
    folder: Path, rows: Sequence[Row] = (ROW,), results: Sequence[StageResult] = (), **claims: Any
) -> dict[str, Path]:
    return write_report(rows, Claims(**claims), results, Evidence(), folder)


def _changed(**changes: object) -> Row:
    return dataclasses.replace(ROW, **changes)  # type: ignore[arg-type]


def test_json_has_exactly_the_agreed_keys(tmp_path: Path) -> None:
    paths = _written(tmp_path, stages=stage_differences([_result("sft", 5), _result("dpo", 9)]))
    content = json.loads(paths["json"].read_text())
    assert list(content) == ["rows", "differences", "ablations", "means"]
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
        *("benchmark", "variant", "stage", "baseline_variant", "baseline", "seeds"),
        *("n", "difference", "ci95", "p_value", "p_corrected"),
    }
    assert difference["difference"] == pytest.approx(4 / 40)


def test_what_was_dropped_is_in_every_format(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.take("documents", 1231)
    ledger.drop("documents", "too_long", 155, tokens=2000)
    ledger.drop("documents", "cut_off", 6)
    ledger.take("validation_documents", 10)
    evidence = Evidence(nodes={"f": GraphNode("midtrain (seed 0)", "f", [], 1.0, ledger.as_json())})
    paths = write_report([ROW], Claims(), [], evidence, tmp_path)
    dropped = "155 too long, 6 cut off (the longest has 2,000 tokens)"
    markdown = paths["markdown"].read_text()
    assert "| stage | unit | in | out | dropped |\n| :-- | :-- | --: | --: | :-- |\n" in markdown
    assert f"| midtrain (seed 0) | documents | 1,231 | 1,070 | {dropped} |\n" in markdown
    assert "| midtrain (seed 0) | validation documents | 10 | 10 |  |\n" in markdown
    page = paths["html"].read_text()
    assert (
        f'<td class="name">documents</td><td>1,231</td><td>1,070</td><td class="name">{dropped}'
        in page
    )
    (counts, validation) = json.loads(paths["json"].read_text())["ledgers"]
    assert counts["dropped"] == {"too_long": 155, "cut_off": 6}
    assert (validation["unit"], validation["in"]) == ("validation_documents", 10)
    assert paths["dropped"].read_text().splitlines() == [
        "stage,fingerprint,unit,in,out,reason,dropped",
        "midtrain (seed 0),f,documents,1231,1070,cut_off,6",
        "midtrain (seed 0),f,documents,1231,1070,too_long,155",
        "midtrain (seed 0),f,validation_documents,10,10,,0",
    ]


def test_two_stages_of_one_name_are_told_apart_by_their_variant() -> None:
    def node(name: str, fingerprint: str, variant: str) -> GraphNode:
        ledger = {"pairs": {"in": 2, "out": 2, "dropped": {}}}
        return GraphNode(name, fingerprint, [], None, ledger, variant=variant)

    nodes = [node("sft", "a", "x=1"), node("rl", "b", "x=1"), node("rl", "c", "x=2")]
    evidence = Evidence(nodes={one.fingerprint: one for one in nodes})
    assert [cells[0] for cells in evidence.ledger_cells()] == ["sft", "rl, x=1", "rl, x=2"]


def test_markdown_shows_the_numbers(tmp_path: Path) -> None:
    text = _written(tmp_path)["markdown"].read_text()
    assert (
        "| stage | benchmark | pass@1 | 95% interval | n | samples | completion tokens "
        "| train tokens | seconds |\n" in text
    )
    assert "| sft | arithmetic | 46.2% | 42.9–49.5% | 1,250 | 4 | 83.3 | 1,234,567 | 219 |" in text
    assert "](ladder.png)" in text
    assert (tmp_path / "ladder.png").is_file()


def test_variant_and_seed_appear_where_they_differ(tmp_path: Path) -> None:
    rows = [ROW, _changed(seed=1), _changed(variant="d|po")]
    text = _written(tmp_path, rows)["markdown"].read_text()
    assert "| variant | seed | stage |" in text
    assert "| without d\\|po | 0 | sft |" in text


def test_differences_are_written_in_words(tmp_path: Path) -> None:
    """24 of 40 problems are gained: 60 points, 2^-23 by signs, so p < 0.001."""
    results = [_result("pretrain", 4), _result("sft", 28), _result("dpo", 29)]
    text = _written(tmp_path, stages=stage_differences(results))["markdown"].read_text()
    assert (
        "**sft** gains 60.0 points over **pretrain** (95% interval +44.1 to +75.9, p < 0.001"
        in (text)
    )
    assert "**dpo** and **sft** cannot be told apart: +2.5 points" in text
    assert "p = 1.000, n = 40, these policies alone)" in text


def test_from_three_seeds_on_the_test_over_seeds_decides(tmp_path: Path) -> None:
    """Gains of 2, 6 and 16 of 40 problems: p = 0.18 by t over three seeds, 0.001 over problems."""
    gains = {0: 2, 1: 6, 2: 16}
    results = [_result("sft", 10, seed=seed) for seed in gains]
    results += [_result("rl", 10 + gain, seed=seed) for seed, gain in gains.items()]
    two_seeds = [result for result in results if result.seed < 2]
    expected = stats.ttest_1samp([gain / 40 for gain in gains.values()], 0)

    (comparison,) = stage_differences(results)

    assert comparison.over_seeds is not None
    assert comparison.over_seeds.p_value >= expected.pvalue > 0.15
    assert comparison.p_corrected < 0.01
    written = _written(tmp_path, stages=[comparison])
    text = written["markdown"].read_text()
    assert (
        "**rl** and **sft** cannot be told apart: +20.0 points (95% interval over seeds -" in text
    )
    assert "3 seeds; over problems for these policies +" in text
    (difference,) = json.loads(written["json"].read_text())["differences"]
    assert difference["seeds_p_value"] == comparison.over_seeds.p_value
    (fewer,) = stage_differences(two_seeds)
    assert fewer.over_seeds is None
    assert "these policies of 2 seeds" in sentence(fewer)


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    comparisons = stage_differences([_result("sft", 28), _result("dpo", 4)])
    text = _written(tmp_path, stages=comparisons)["markdown"].read_text()
    assert "**dpo** loses 60.0 points over **sft**" not in text
    assert "**dpo** loses 60.0 points against **sft**" in text


def test_which_stages_are_compared() -> None:
    results = [_result(stage, right) for right, stage in enumerate(("a", "b", "c", "d"), start=3)]
    pairs = [(d.baseline, d.stage) for d in stage_differences(results)]
    assert pairs == [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("b", "d")]


def test_only_the_same_problems_are_compared() -> None:
    assert stage_differences([_result("sft", 5), _result("dpo", 9, ids="q")]) == []


def test_problems_are_paired_by_id_not_by_position() -> None:
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


def test_seeds_are_pooled_and_counted(tmp_path: Path) -> None:
    """Seed 0 gains 4 problems, seed 1 gains 8, of 40: 15 points; seed 2 lacks one stage."""
    results = [_result("sft", 10), _result("sft", 10, seed=1), _result("sft", 10, seed=2)]
    results += [_result("rl", 14), _result("rl", 18, seed=1)]
    (comparison,) = stage_differences(results)
    a = np.stack([np.arange(40) < 14, np.arange(40) < 18], axis=1)
    b = np.stack([np.arange(40) < 10] * 2, axis=1)
    assert comparison.seeds == (0, 1)
    assert comparison.difference == paired_difference(a, b)
    assert comparison.difference.mean == pytest.approx(0.15)
    assert (
        "n = 40, these policies of 2 seeds)"
        in _written(tmp_path, stages=[comparison])["markdown"].read_text()
    )


def test_mean_over_seeds(tmp_path: Path) -> None:
    """10 and 18 of 40: 25% and 45%, together 35%; a stage with one seed has no mean."""
    results = [_result("sft", 10), _result("sft", 18, seed=1), _result("rl", 30)]
    (mean,) = stage_means(results)
    assert mean.stage == "sft"
    assert mean.by_seed == {0: 0.25, 1: 0.45}
    assert mean.estimate.mean == pytest.approx(0.35)
    assert (mean.estimate.n, mean.estimate.samples) == (40, 2)
    paths = _written(tmp_path, means=[mean])
    page = paths["markdown"].read_text()
    assert "| sft | arithmetic | 35.0% |" in page
    assert "| 25.0%, 45.0% |" in page
    assert json.loads(paths["json"].read_text())["means"][0]["by_seed"] == {"0": 0.25, "1": 0.45}
    console = Console(width=100, record=True)
    console.print(console_table("means", *mean_cells([mean])))
    assert "35.0%" in console.export_text()


def test_a_long_list_of_seeds_breaks_between_them() -> None:
    means = stage_means([_result("midtrain", right, seed=right) for right in range(4, 16)])
    console = Console(width=80)
    with console.capture() as captured:
        console.print(console_table("means", *mean_cells(means)))
    words = captured.get().split()
    assert "midtrain" in words
    assert "arithmetic" in words
    seeds = [f"{100 * right / 40:.1f}%" for right in range(4, 16)]
    assert [word.rstrip(",") for word in words if word.rstrip(",") in seeds][-12:] == seeds


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
    image = imread(_written(tmp_path, rows)["ladder"])
    height, width = image.shape[:2]
    assert 600 <= height <= 2400
    assert 900 <= width <= 3600
    inked = (image[..., :3] < 0.95).any(axis=-1).mean()
    assert 0.005 < inked < 0.5


def test_a_stage_that_a_variant_lacks_leaves_a_gap(tmp_path: Path) -> None:
    rows = [_changed(stage=stage) for stage in ("pretrain", "sft", "rl")]
    rows += [_changed(variant="sft", stage=stage) for stage in ("pretrain", "rl")]
    assert imread(_written(tmp_path, rows)["ladder"]).size > 0


def test_rewriting_replaces_and_leaves_no_draft(tmp_path: Path) -> None:
    _written(tmp_path)
    _written(tmp_path, [_changed(pass_at_1=0.9, ci95=(0.8, 0.95))])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("ladder.png", "report.csv", "report.html", "report.json", "report.md", "report.tex")
    ]
    assert "90.0%" in (tmp_path / "report.md").read_text()


def test_nan_is_refused_before_any_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        _written(tmp_path, [_changed(pass_at_1=float("nan"))])
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no evaluation to report"):
        _written(tmp_path, [])


def test_the_console_table_never_cuts_a_number() -> None:
    rows = [_changed(variant="without-midtrain"), _changed(seed=1, benchmark="number-theory-hard")]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(console_table("rows", *row_cells(rows)))
    for number in ("46.2%", "42.9–49.5%", "1,250", "83.3", "1,234,567", "219"):
        assert captured.get().count(number) == 2


def test_a_variant_of_any_length_stands_above_its_rows() -> None:
    arm = "stages.sft.optimization.learning_rate=1e-4, model=tiny, without midtrain+prefer+dpo+rl"
    names = [arm, "none"]
    rows = [_changed(variant=name, stage=stage) for name in names for stage in ("sft", "rl")]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(console_table("rows", *row_cells(rows)))
    lines = captured.get().splitlines()
    # A name too long for the terminal breaks between words; numbers stand below each other.
    starts = [at for at, line in enumerate(lines) if line.startswith(("stages.", "the full"))]
    assert [lines[at].rstrip() for at in starts] == [arm.rsplit(" ", 1)[0], "the full recipe"]
    shown = [line for line in lines if line.startswith(("sft", "rl"))]
    assert [line.split()[0] for line in shown] == ["sft", "rl"] * 2
    assert len({line.index("46.2%") for line in shown}) == 1


def test_a_policy_that_variants_share_is_compared_once() -> None:
    """Without dpo the ladder is sft, rl: sft and what came before it are the full recipe's."""
    ladder = [("base", 4), ("sft", 8), ("dpo", 10), ("rl", 12)]
    full = [_result(stage, right, policy=stage) for stage, right in ladder]
    less = [
        dataclasses.replace(_result(stage, right, policy=policy), variant="dpo")
        for stage, right, policy in (("base", 4, "base"), ("sft", 8, "sft"), ("rl", 9, "other"))
    ]
    pairs = [(c.variant, c.baseline, c.stage) for c in stage_differences([*full, *less])]
    assert pairs == [
        *(("none", "base", "sft"), ("none", "sft", "dpo"), ("none", "dpo", "rl")),
        *(("none", "base", "rl"), ("none", "sft", "rl")),
        *(("dpo", "sft", "rl"), ("dpo", "base", "rl")),
    ]


def test_variants_are_compared_with_the_full_recipe(tmp_path: Path) -> None:
    """30 of 40 with everything; 12 without sft: -45 points. Without rl the last stage is dpo."""
    results = [
        *(_result("rl", 12, variant="sft"), _result("dpo", 28), _result("rl", 30)),
        _result("dpo", 28, variant="rl"),
    ]
    without_sft, without_rl = variant_differences(results)
    assert (without_sft.variant, without_sft.baseline_variant) == ("sft", "none")
    assert without_sft.difference.mean == pytest.approx(-0.45)
    assert (without_rl.stage, without_rl.baseline) == ("dpo", "rl")
    assert without_rl.difference.mean == pytest.approx(-0.05)
    # Holm: the smaller of two p-values counts double, the larger as it is.
    assert without_sft.p_corrected == pytest.approx(2 * without_sft.difference.p_value)
    assert without_rl.p_corrected == without_rl.difference.p_value
    paths = _written(tmp_path, results=results, variants=[without_sft, without_rl])
    page = paths["markdown"].read_text()
    assert "**without sft** loses 45.0 points against **the full recipe**" in page
    assert "**without rl** and **the full recipe** cannot be told apart: -5.0 points" in page
    assert "| without sft | the full recipe | arithmetic | -45.0 |" in page
    for name in ("ablation", "lengths"):
        assert f"]({name}.png)" in page
        assert imread(paths[name]).size > 0
    table = list(csv.DictReader(paths["comparisons"].open()))
    assert [(line["variant"], line["difference"]) for line in table] == [
        ("sft", str(without_sft.difference.mean)),
        ("rl", str(without_rl.difference.mean)),
    ]


def test_without_a_full_recipe_the_first_variant_is_the_baseline() -> None:
    (comparison,) = variant_differences(
        [_result("rl", 20, variant="lr=1"), _result("rl", 22, variant="lr=2")]
    )
    assert (comparison.variant, comparison.baseline_variant) == ("lr=2", "lr=1")


def test_csv_has_a_line_a_row(tmp_path: Path) -> None:
    rows = [ROW, _changed(stage="rl")]
    first, second = csv.DictReader(_written(tmp_path, rows)["csv"].open())
    assert (first["stage"], second["stage"]) == ("sft", "rl")
    assert first["pass@1"] == "0.4621"
    assert (first["ci95_low"], first["ci95_high"]) == ("0.4287", "0.4955")


def test_latex_escapes_and_balances() -> None:
    text = latex_tables([_changed(variant="a_b & 5%"), ROW], Claims(), "method")
    assert r"a\_b \& 5\%" in text
    assert "42.9--49.5\\%" in text
    (columns,) = [line for line in text.splitlines() if line.startswith("\\begin{tabular}")]
    header = text.splitlines()[text.splitlines().index("\\toprule") + 1]
    assert len(columns.split("{")[-1].rstrip("}")) == header.count("&") + 1
    for rule in ("toprule", "midrule", "bottomrule", "end{tabular}"):
        assert text.count(f"\\{rule}") == 1
