"""Outcomes in a file give the report that the evaluations themselves give."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.outcomes import OUTCOMES, read_outcomes
from reasoning_lab.report.rows import StageResult
from reasoning_lab.report.write import write_report
from reasoning_lab.types import UserError
from tests.support.outcomes import Policy, write_page

PROMPTS = [f"p{number}" for number in range(24)]
POLICIES: list[Policy] = [
    (variant, stage, seed)
    for variant in ("none", "dpo")
    for seed in (0, 1, 2)
    for stage in ("sft", "rl")
]
LEDGERS = {"rl": {"problems": {"in": 9, "out": 7, "dropped": {"too_long": 2}}}}


def is_right(policy: Policy, problem: int, sample: int) -> bool:
    variant, stage, seed = policy
    skill = 5 + 4 * (stage == "rl") + 2 * (variant == "none") + seed
    return (7 * problem + 3 * sample + seed) % 24 < skill


def test_a_report_of_outcomes_is_the_report_of_the_evaluations(tmp_path: Path) -> None:
    rows, evidence = write_page(
        tmp_path / "page", tmp_path, POLICIES, PROMPTS, is_right, samples=2, ledgers=LEDGERS
    )
    results = [
        StageResult(
            variant=row.variant,
            stage=row.stage,
            seed=row.seed,
            benchmark=row.benchmark,
            fingerprint=row.fingerprint,
            **Evaluation(tmp_path / row.fingerprint).samples(2)._asdict(),
        )
        for row in rows
    ]
    outcomes = read_outcomes(tmp_path / "page" / OUTCOMES)
    claims = Claims.of(outcomes.results)
    assert claims == Claims.of(results)
    assert claims.stages[0].over_seeds is not None
    ours = write_report(outcomes.rows, claims, outcomes.results, outcomes.evidence, tmp_path / "a")
    theirs = write_report(rows, Claims.of(results), results, evidence, tmp_path / "b")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name].read_bytes() != theirs[name].read_bytes()] == []
    assert "too_long" in ours["dropped"].read_text()
    assert "2 were trained on before" in ours["markdown"].read_text()


def test_the_file_has_a_row_for_each_completion(tmp_path: Path) -> None:
    policy = ("none", "sft", 4)
    write_page(tmp_path, tmp_path, [policy], PROMPTS, is_right, samples=2)
    lines = pq.read_table(tmp_path / OUTCOMES).to_pylist()
    assert len(lines) == 48
    assert lines[3].items() >= {
        ("variant", "none"),
        ("stage", "sft"),
        ("seed", 4),
        ("benchmark", "heldout"),
        ("family", "f"),
        ("level", 1),
        ("sample", 1),
        ("verdict", "correct" if is_right(policy, 1, 1) else "wrong"),
        ("completion_tokens", 4),
    }
    assert [line["problem"] for line in lines[:3]] == [lines[0]["problem"]] * 2 + [
        lines[3]["problem"]
    ]


def test_a_seed_takes_its_minutes(tmp_path: Path) -> None:
    """Twelve nodes of a minute by three seeds."""
    write_page(tmp_path, tmp_path, POLICIES, PROMPTS, is_right)
    outcomes = read_outcomes(tmp_path / OUTCOMES)
    assert (outcomes.seeds, outcomes.seconds_per_seed) == ([0, 1, 2], 240.0)


def altered(file: Path, column: str, values: list[object]) -> None:
    table = pq.read_table(file)
    place = table.schema.get_field_index(column)
    metadata = pq.read_metadata(file).metadata
    changed = table.set_column(place, column, pa.array(values))
    pq.write_table(changed.replace_schema_metadata(metadata), file)


def test_verdicts_that_do_not_give_the_rows_are_refused(tmp_path: Path) -> None:
    write_page(tmp_path, tmp_path, [("none", "sft", 0)], PROMPTS, is_right)
    altered(tmp_path / OUTCOMES, "verdict", ["correct"] * 24)
    with pytest.raises(UserError, match=r"has pass@1 1\.0000 of 24 problems by its verdicts"):
        read_outcomes(tmp_path / OUTCOMES)


def test_rows_without_verdicts_are_refused(tmp_path: Path) -> None:
    write_page(tmp_path, tmp_path, [("none", "sft", 0)], PROMPTS, is_right)
    altered(tmp_path / OUTCOMES, "seed", [1] * 24)
    with pytest.raises(UserError, match="no verdict of 'sft', seed 0, on 'heldout'"):
        read_outcomes(tmp_path / OUTCOMES)


@pytest.mark.parametrize(
    "content",
    [
        b"not parquet",
        {},
        {b"reasoning_lab.report": b"no json"},
        {b"reasoning_lab.report": b"[1]"},
        {b"reasoning_lab.report": json.dumps({"format": 2}).encode()},
        {b"reasoning_lab.report": json.dumps({"format": 1, "rows": [{"n": 1}]}).encode()},
    ],
)
def test_another_file_ends_in_one_sentence(
    content: bytes | dict[bytes, bytes], tmp_path: Path
) -> None:
    file = tmp_path / OUTCOMES
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        pq.write_table(pa.table({"seed": [0]}).replace_schema_metadata(content), file)
    with pytest.raises(UserError, match="it is no outcomes file of this version") as refusal:
        read_outcomes(file)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"outcomes\.parquet: there is no such file"):
        read_outcomes(tmp_path / OUTCOMES)
