"""What becomes of documents that are longer than a row, and what is said of it."""

from pathlib import Path

import pytest

from reasoning_lab.data.corpus import RolloutFile, write_rollouts
from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.data.tokens.limits import fit_to_rows
from reasoning_lab.data.tokens.table import Overlong, TokenTable
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Example, UserError
from tests.support.curation import rollout

# Prompts of 2, 2 and 5 tokens; 4, 9 and 7 tokens in all.
EXAMPLES = [
    Example([1, 1], [2, 2]),
    Example([3, 3], [4] * 7),
    Example([5] * 5, [6, 6]),
]


def fit(folder: Path, row_tokens: int, overlong: Overlong, ledger: Ledger) -> TokenTable:
    path = folder / "rollouts.parquet"
    write_rollouts(path, [rollout(f"problem {number}") for number in range(3)])
    documents = TokenTable.of_documents([document_of(example) for example in EXAMPLES])
    ledger.take("documents", 3)
    return fit_to_rows(
        RolloutFile(path), documents, row_tokens, overlong, "documents", ledger, "midtrain"
    )


def test_dropped_documents_are_counted_and_named(tmp_path: Path) -> None:
    ledger = Ledger()
    fitting = fit(tmp_path, 7, Overlong.DROP, ledger)
    assert fitting.lengths.tolist() == [4, 7]
    counts = ledger.as_json()["documents"]
    assert counts["dropped"] == {"too_long": 1}
    assert counts["longest_tokens"] == 9
    assert "problem 1" in counts["longest"]


def test_split_documents_are_said_and_untrained_parts_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ledger = Ledger()
    pieces = fit(tmp_path, 4, Overlong.SPLIT, ledger)
    # 9 = 4 + 4 + 1 and 7 = 4 + 3. Nothing predicts the 1; a piece of prompt alone is not trained.
    assert pieces.lengths.tolist() == [4, 4, 4, 3]
    assert pieces.trained_tokens.tolist() == [2, 2, 3, 2]
    expected = "stages.midtrain.row_tokens: 2 documents are longer and split into 5."
    assert caplog.messages == [expected]
    assert ledger.as_json()["pieces"]["dropped"] == {"no_trained_token": 2}
    assert ledger.as_json()["documents"]["dropped"] == {}
    assert any("pieces" in warning for warning in ledger.warnings())


def test_tokens_that_are_cut_off_are_counted(tmp_path: Path) -> None:
    ledger = Ledger()
    cut_off = fit(tmp_path, 6, Overlong.TRUNCATE, ledger)
    assert cut_off.lengths.tolist() == [4, 6, 6]
    assert ledger.as_json()["tokens"] == {"in": 20, "out": 16, "dropped": {"truncated": 4}}


@pytest.mark.parametrize("overlong", list(Overlong))
def test_nothing_left_is_an_error(overlong: Overlong, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^stages\.midtrain\.row_tokens=1: nothing is left"):
        fit(tmp_path, 1, overlong, Ledger())
