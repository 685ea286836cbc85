"""Small files in the layouts of published datasets, through the options that ship for them.

They lie beside the checkout; where they do not, there is nothing to test. Every file is loaded
as it is meant, or refused in one sentence.
"""

from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier
from tests.conftest import Compose
from tests.support.dataset_reading import LEVELS, read_dataset

FAULTS = Path(__file__).parents[4] / "shared" / "faults" / "data"

CHOICES = {"prompt": "question", "checker": "choice", "level": 1}
# File, option, columns that the user names, rows used, rows dropped by reason.
LOADED: list[tuple[str, str, dict[str, Any], int, dict[str, int]]] = [
    ("aqua.jsonl", "aqua_rat", {}, 60, {}),
    ("aqua_emptyopt.jsonl", "aqua_rat", {}, 59, {"empty_option": 1}),
    ("arc.jsonl", "jsonl", CHOICES | {"options": "choices", "gold": "answerKey"}, 60, {}),
    ("bom.jsonl", "jsonl", {"solutions": "sol"}, 60, {}),
    (
        "dapo.parquet",
        "jsonl",
        {"prompt": "prompt.user.content", "gold": "reward_model.ground_truth"},
        60,
        {},
    ),
    ("deepscaler.json", "deepscaler", {}, 60, {}),
    ("medqa.jsonl", "jsonl", CHOICES | {"options": "options", "gold": "answer_idx"}, 60, {}),
    ("metamath.json", "metamathqa", {}, 60, {}),
    (
        "mmlu_index.jsonl",
        "jsonl",
        CHOICES | {"options": "options", "gold": "answer", "gold_names": "index_from_0"},
        30,
        {},
    ),
    ("mmlupro.jsonl", "jsonl", CHOICES | {"options": "options", "gold": "answer"}, 30, {}),
    ("numgold.jsonl", "jsonl", {}, 60, {}),
    ("numina15.jsonl", "numinamath", {}, 46, {"filtered": 14}),
    (
        "numina_cot.jsonl",
        "jsonl",
        {"prompt": "problem", "gold": "solution", "gold_in": "boxed"},
        60,
        {},
    ),
    ("olympiad.jsonl", "jsonl", {"prompt": "question", "gold": "final_answer"}, 60, {}),
    ("openr1.parquet", "openr1_math", {}, 56, {"filtered": 1, "no_gold": 3}),
    ("openr1_hard.parquet", "openr1_math", {}, 56, {"filtered": 1, "no_gold": 3}),
    ("openthoughts.parquet", "openthoughts", {}, 41, {"filtered": 12, "no_gold": 7}),
    (
        "openthoughts_emptythought.parquet",
        "openthoughts",
        {},
        40,
        {"filtered": 12, "no_gold": 7, "missing_thought": 1},
    ),
    ("rlvr.jsonl", "jsonl", {"prompt": "messages.user.content", "gold": "ground_truth"}, 60, {}),
    ("special.jsonl", "jsonl", {}, 60, {}),
    ("stratos_h4.jsonl", "bespoke_stratos", {}, 60, {}),
    ("stratos_h4_system.jsonl", "bespoke_stratos", {}, 60, {}),
    (
        "stratos_up.jsonl",
        "bespoke_stratos",
        {
            "prompt": "conversations.user.value",
            "gold": "conversations.assistant.value",
            "solutions": "conversations.assistant.value",
        },
        60,
        {},
    ),
]
# File, option, columns that the user names, what the sentence has.
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "dapo.parquet",
        "jsonl",
        {},
        "data.rows.gold: there is no column 'gold'; the columns are data_",
    ),
    ("empty.jsonl", "jsonl", {}, "data.path: there are no rows"),
    (
        "mmlu_index.jsonl",
        "jsonl",
        CHOICES | {"options": "options", "gold": "answer"},
        "index_from_0",
    ),
    ("numina_cot.jsonl", "numinamath", {}, "data.rows.gold: there is no column 'answer'"),
    ("rlvr.jsonl", "jsonl", {}, "the columns are messages, ground_truth, dataset"),
    ("stratos_up.jsonl", "bespoke_stratos", {}, "the columns are system, conversations"),
    ("surrogate.jsonl", "jsonl", {}, "line 6: 'prompt' holds half of a surrogate pair"),
]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not FAULTS.is_dir(), reason="the shared files are not here"),
]


def source_of(composed: Compose, file: str, option: str, rows: dict[str, Any]) -> ProblemSource:
    words = [f"data.rows.{key}={value}" for key, value in rows.items()]
    return composed(f"data={option}", f"data.path={FAULTS / file}", *words).source


@pytest.mark.parametrize(("file", "option", "rows", "used", "dropped"), LOADED)
def test_a_layout_is_read_as_it_is_meant(
    composed: Compose,
    file: str,
    option: str,
    rows: dict[str, Any],
    used: int,
    dropped: dict[str, int],
) -> None:
    ledger = Ledger()
    source_of(composed, file, option, rows).record_rows(ledger)
    counts = ledger.as_json()["rows"]
    assert (counts["out"], counts["dropped"]) == (used, dropped)


@pytest.mark.parametrize(("file", "option", "rows", "sentence"), REFUSED)
def test_a_layout_that_does_not_fit_is_refused(
    composed: Compose, file: str, option: str, rows: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError) as refusal:
        source_of(composed, file, option, rows)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


# What becomes of recorded solutions by file: as many as there are rows unless it says otherwise.
# Half of OpenR1's chains are cut off, some of the others are wrong, and a few golds are unreadable.
# DeepScaleR's rows have a solution each second time. NuminaMath's here say their answer in words.
OUTCOMES: dict[str, dict[str, int]] = {
    "deepscaler.json": {"accepted": 30},
    "openr1.parquet": {"accepted": 56, "cut_off": 56},
    "openr1_hard.parquet": {"accepted": 36, "wrong": 18, "cut_off": 54},
}
CHAINS = [
    (file, option, rows, OUTCOMES.get(file, {"accepted": used}))
    for file, option, rows, used, _ in LOADED
    if option not in ("jsonl", "numinamath")
]


@pytest.mark.parametrize(("file", "option", "rows", "outcomes"), CHAINS)
def test_recorded_solutions_become_tokens(
    composed: Compose,
    tmp_path: Path,
    verifier: Verifier,
    file: str,
    option: str,
    rows: dict[str, Any],
    outcomes: dict[str, int],
) -> None:
    words = [f"data.rows.{key}={value}" for key, value in rows.items()]
    fractions = ["data.test_frac=0.0", "data.validation_frac=0.0"]
    source = composed(f"data={option}", f"data.path={FAULTS / file}", *fractions, *words).source
    reading = read_dataset(source, LEVELS, tmp_path, verifier)
    assert +reading.rollouts == outcomes
    assert len(reading.documents) == reading.curated == outcomes["accepted"]
    assert min(reading.trained) > 0


def test_levels_of_math_that_are_none_are_left_out(composed: Compose) -> None:
    ledger = Ledger()
    source_of(composed, "math.jsonl", "math", {}).record_rows(ledger)
    counts = ledger.as_json()["rows"]
    assert counts["dropped"]["filtered"] == 6
    # Two answers stand in other marks than \\boxed{}, which the verifier may read or not.
    assert 52 <= counts["out"] <= 54


def test_no_file_is_forgotten() -> None:
    tried = {case[0] for case in [*LOADED, *REFUSED]} | {"math.jsonl"}
    assert {path.name for path in FAULTS.iterdir()} <= tried
