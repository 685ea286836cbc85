"""What each stage counts as come in, gone out and dropped, through the stages themselves."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.tokenizer import tokenize_rollouts
from reasoning_lab.stages.prefer.stage import PreferTeacherStage
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict
from tests.support.stages import RL, STAGES, STEPS, run_stage, saved_states, trained

LONG = 7


def rollouts(name: str, right: int, wrong: int, level: int = 1) -> list[Rollout]:
    """Of one problem; the accepted come first."""
    problem = Problem(name, "1", "math", "f", level)
    verdicts = [Verdict.CORRECT] * right + [Verdict.WRONG] * wrong
    return [
        Rollout(problem, Completion([], f"{name} {number}"), "1", verdict, "sage")
        for number, verdict in enumerate(verdicts)
    ]


def longer(rollout: Rollout, times: int) -> Rollout:
    return replace(rollout, completion=Completion([], "it shows 1 " * times))


@pytest.fixture
def with_long(context: StageContext, tmp_path: Path) -> StageContext:
    """Of sixty documents and pairs, seven are of more than a hundred tokens, the third the longest.

    The other documents have less than thirty.
    """
    inputs = dict(context.inputs)
    for kind, names in (("corpus", ["accepted"]), ("preferences", ["chosen", "rejected"])):
        inputs[kind] = type(context.inputs[kind])(tmp_path / kind)
        inputs[kind].path.mkdir()
        for name in names:
            short = read_rollouts(context.inputs[kind].path / f"{name}.parquet")
            times = [40, 41, 50, 42, 43, 44, 45]
            long = [longer(one, n) for one, n in zip(short[:LONG], times, strict=True)]
            write_rollouts(inputs[kind].path / f"{name}.parquet", [*long, *short[LONG:]])
    validation = read_rollouts(context.inputs["corpus"].path / "validation.parquet")
    write_rollouts(inputs["corpus"].path / "validation.parquet", validation)
    return replace(context, inputs=inputs)


def longest_of(context: StageContext, kind: str, name: str) -> tuple[int, str]:
    """Tokens and origin of the third document, counted apart from the stages."""
    _, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    third = read_rollouts(context.inputs[kind].path / f"{name}.parquet")[2]
    (example,) = tokenize_rollouts(tokenizer, [third])
    return len(example.prompt_ids) + len(example.completion_ids), third.problem.origin


@pytest.mark.parametrize(
    ("stage", "bound", "unit", "place"),
    [
        ("midtrain", "row_tokens", "documents", ("corpus", "accepted")),
        ("sft", "max_tokens", "rollouts", ("corpus", "accepted")),
        ("dpo", "max_tokens", "pairs", ("preferences", "chosen")),
    ],
)
def test_what_is_too_long_is_counted_and_the_longest_named(
    stage: str,
    bound: str,
    unit: str,
    place: tuple[str, str],
    with_long: StageContext,
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    changes: dict[str, Any] = {bound: 64}
    config: Any = replace(STAGES[stage], **changes | ({"count": 99} if stage == "sft" else {}))
    trained(stage, with_long, tmp_path / "some", config, ledger)
    tokens, origin = longest_of(with_long, *place)
    assert ledger.as_json()[unit] == {
        "in": 60,
        "out": 53,
        "dropped": {"too_long": 7},
        "longest_tokens": tokens,
        "longest": origin,
    }
    (warning,) = ledger.warnings()
    assert "7 of 60 (12%)" in warning
    ledger.write_rows(tmp_path)
    lines = (tmp_path / "dropped.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["unit"], row["reason"]) for row in rows] == [(unit, "too_long")] * LONG
    assert [row["origin"] for row in rows if row["tokens"] == tokens] == [origin]
    message = (
        f"stages.stage.{bound}=2: nothing is left; .* has {tokens} tokens: {origin}.*; raise it"
    )
    with pytest.raises(UserError, match=message):
        trained(stage, with_long, tmp_path / "none", replace(config, **{bound: 2}))


def test_validation_documents_are_counted_apart(context: StageContext, tmp_path: Path) -> None:
    ledger = Ledger()
    trained("midtrain", context, tmp_path, ledger=ledger)
    assert ledger.as_json() == {
        "documents": {"in": 60, "out": 60, "dropped": {}},
        "validation_documents": {"in": 10, "out": 10, "dropped": {}},
    }


@pytest.mark.parametrize(
    ("stage", "kind", "emptied", "message"),
    [
        ("midtrain", "corpus", ["accepted"], "the corpus has no accepted rollout; distill more"),
        ("dpo", "preferences", ["chosen", "rejected"], "the preferences have no pair; sample"),
    ],
)
def test_what_is_empty_from_the_start_is_refused(
    stage: str, kind: str, emptied: list[str], message: str, context: StageContext, tmp_path: Path
) -> None:
    shutil.copytree(context.inputs[kind].path, tmp_path / kind)
    for name in emptied:
        write_rollouts(tmp_path / kind / f"{name}.parquet", [])
    copied = type(context.inputs[kind])(tmp_path / kind)
    placed = replace(context, inputs={**context.inputs, kind: copied})
    with pytest.raises(UserError, match=f"stages.stage: {message}"):
        trained(stage, placed, tmp_path)


def test_midtrain_without_validation_documents_trains_to_its_end(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(context.inputs["corpus"].path, tmp_path / "corpus")
    write_rollouts(tmp_path / "corpus" / "validation.parquet", [])
    placed = replace(context, inputs={**context.inputs, "corpus": Corpus(tmp_path / "corpus")})
    metrics = trained("midtrain", placed, tmp_path / "trained")
    assert metrics["steps"] == STAGES["midtrain"].optimization.steps
    assert "no validation documents, so training does not stop early" in caplog.text


def test_the_subset_of_sft_is_a_selection(context: StageContext, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    # Of five problems at level 2 each gives its longest; three are asked for.
    accepted = [one for n in range(5) for one in rollouts(f"hard {n}", 2, 0, level=2)]
    accepted += [one for n in range(4) for one in rollouts(f"easy {n}", 1, 0)]
    write_rollouts(corpus / "accepted.parquet", accepted)
    ledger = Ledger()
    config = replace(STAGES["sft"], levels=[2], count=3)  # type: ignore[call-arg]
    metrics = trained(
        "sft",
        replace(context, inputs={**context.inputs, "corpus": Corpus(corpus)}),
        tmp_path,
        config,
        ledger,
    )
    assert ledger.as_json()["rollouts"] == {
        "in": 14,
        "out": 3,
        "dropped": {"other_level": 4, "not_longest_of_problem": 5, "beyond_count": 2},
        "selected": ["beyond_count", "not_longest_of_problem", "other_level"],
    }
    assert metrics["examples"] == 3
    assert ledger.warnings() == []


def test_groups_that_give_no_pair_are_counted(context: StageContext, tmp_path: Path) -> None:
    groups = [rollouts("a", 2, 1), rollouts("b", 2, 0), rollouts("c", 0, 1), rollouts("d", 3, 3)]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    _write_corpus(corpus, [one for group in groups for one in group])
    ledger = Ledger()
    placed = replace(context, out_dir=tmp_path, inputs={"corpus": Corpus(corpus)}, ledger=ledger)
    metrics = run_stage(PreferTeacherStage(pairs_per_problem=2), placed)
    assert metrics["pairs"] == 1 + 2
    assert ledger.as_json() == {
        "groups": {"in": 4, "out": 2, "dropped": {"no_correct_rollout": 1, "no_wrong_rollout": 1}},
        "rollouts": {
            "in": 12,
            "out": 6,
            "dropped": {"beyond_pairs_per_problem": 3, "no_counterpart": 3},
            "selected": ["beyond_pairs_per_problem", "no_counterpart"],
        },
    }
    assert len(ledger.warnings()) == 1


def _write_corpus(folder: Path, members: Sequence[Rollout]) -> None:
    for name, correct in (("accepted", True), ("rejected", False)):
        chosen = [one for one in members if one.correct is correct]
        write_rollouts(folder / f"{name}.parquet", chosen)


def test_rl_counts_every_step_and_a_resumed_run_counts_the_same(
    context: StageContext, tmp_path: Path
) -> None:
    ledger = Ledger()
    metrics = trained("rl", context, tmp_path / "whole", ledger=ledger)
    counts = ledger.as_json()
    history = read_history(tmp_path / "whole" / "out")
    total = {key: round(sum(history[f"rollout/{key}"].values())) for key in _PER_STEP}
    assert counts["problems"]["in"] == 40
    assert counts["problems"]["out"] == metrics["pool"]
    assert counts["groups"]["in"] == STEPS * RL.optimization.batch_size
    assert counts["groups"]["out"] == total["groups_trained"]
    reasons = Counter(counts["groups"]["dropped"])
    assert reasons["no_signal"] == total["groups_without_signal"]
    assert counts["rollouts"]["in"] == metrics["rollouts"] == 24 * RL.group_size
    assert counts["rollouts"]["out"] == RL.group_size * total["groups_trained"]

    resumed = Ledger()
    _, states = saved_states("rl", context, tmp_path / "killed")
    trained("rl", context, states[2], ledger=resumed)
    assert resumed.as_json() == counts


_PER_STEP = ("groups_trained", "groups_without_signal")
