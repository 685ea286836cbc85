"""Tables, against text by hand."""

import numpy as np

from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.rows import StageResult
from reasoning_lab.report.table import comparison_cells, filled, markdown_table


def test_a_column_without_content_is_left_out() -> None:
    cells = [["a", "", "1"], ["", "", "2"]]
    assert markdown_table(["stage", "p", "n"], cells) == (
        "| stage | n |\n| :-- | --: |\n| a | 1 |\n|  | 2 |\n"
    )


def test_a_table_without_rows_keeps_its_columns() -> None:
    assert filled(["stage", "n"], []) == (["stage", "n"], [])


def test_stages_of_several_variants_name_theirs() -> None:
    def of(variant: str, right: int) -> list[StageResult]:
        correct = np.arange(8)[:, None] < right
        ids = [str(number) for number in range(8)]
        return [
            StageResult(
                variant=variant,
                stage=stage,
                seed=0,
                benchmark="halves",
                fingerprint=stage + variant,
                problem_ids=ids,
                correct=verdicts,
                completion_tokens=verdicts,
            )
            for stage, verdicts in (("sft", ~correct), ("rl", correct))
        ]

    results = of("none", 4) + of("dpo", 6)
    columns, cells = comparison_cells(Claims.of(results).stages)
    assert columns[:4] == ["variant", "policy", "against", "benchmark"]
    # 4 of 8 against the other 4; 6 of 8 against 2.
    assert [[*cell[:3], cell[4]] for cell in cells] == [
        ["the full recipe", "rl", "sft", "+0.0"],
        ["without dpo", "rl", "sft", "+50.0"],
    ]
    assert comparison_cells(Claims.of(of("none", 4)).stages)[0][0] == "policy"
