"""Whose rollouts make a pair, and what is said of where they come from."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.benchmark import SamplingConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.data.curation.selection import group_by_problem, preference_pairs
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.prefer.stage import PreferMixedStage, PreferTeacherStage
from reasoning_lab.types import UserError, Verdict
from tests.support.rollouts import rollout
from tests.support.stages import run_stage
from tests.support.trained import trained_ids


@pytest.fixture
def mixed(context: Any, tmp_path: Path) -> Any:
    """A stage that has the policy, and a teacher's right and wrong answers to sixty coins."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    policy = tmp_path / "dpo-1"
    policy.symlink_to(context.inputs["policy"].path)
    for name, kind in (("accepted", "chosen"), ("rejected", "rejected")):
        rollouts = read_rollouts(context.inputs["preferences"].path / f"{kind}.parquet")
        write_rollouts(
            corpus / f"{name}.parquet", [replace(rollout, author="sage") for rollout in rollouts]
        )
    return replace(
        context,
        out_dir=tmp_path,
        work_dir=tmp_path / "work",
        inputs={"policy": Policy(policy), "corpus": Corpus(corpus)},
    )


def config(**changes: Any) -> PreferMixedStage:
    stage = PreferMixedStage(
        problems=ProblemsConfig([1], 30),
        group_size=4,
        sampling=SamplingConfig(temperature=1.0, max_new_tokens=12),
        pairs_per_problem=1,
    )
    return replace(stage, **changes)


def pairs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("chosen_from", "rejected_from"),
    [("teacher", "policy"), ("policy", "teacher"), ("policy", "policy"), ("teacher", "teacher")],
)
def test_each_side_comes_from_whom_it_should(
    mixed: Any, chosen_from: str, rejected_from: str
) -> None:
    metrics = run_stage(config(chosen_from=chosen_from, rejected_from=rejected_from), mixed)
    written_pairs = pairs(mixed.out_dir)
    assert 10 < metrics["pairs"] == len(written_pairs) <= 30
    author = {"teacher": "sage", "policy": "dpo-1"}
    assert {pair["chosen_author"] for pair in written_pairs} == {author[chosen_from]}
    corpus_order = [one.problem.id for one in mixed.inputs["corpus"].accepted()]
    places = [corpus_order.index(pair["prompt_id"]) for pair in written_pairs]
    assert places == sorted(places)
    assert {pair["rejected_author"] for pair in written_pairs} == {author[rejected_from]}
    for side in ("chosen", "rejected"):
        rollouts = read_rollouts(mixed.out_dir / f"{side}.parquet")
        assert [pair["prompt_id"] for pair in written_pairs] == [one.problem.id for one in rollouts]
        assert [pair[f"{side}_characters"] for pair in written_pairs] == [
            len(one.completion.text) for one in rollouts
        ]
        assert [pair[f"{side}_verdict"] for pair in written_pairs] == [
            str(one.verdict) for one in rollouts
        ]
        assert all((one.verdict == "correct") is (side == "chosen") for one in rollouts)
    assert all("math-verify" in pair["verifier"] for pair in written_pairs)


def test_any_takes_both(mixed: Any) -> None:
    run_stage(config(pairs_per_problem=9), mixed)
    written_pairs = pairs(mixed.out_dir)
    assert {pair["chosen_author"] for pair in written_pairs} == {"sage", "dpo-1"}
    assert {pair["rejected_author"] for pair in written_pairs} == {"sage", "dpo-1"}


def test_a_corpus_with_fewer_problems_is_told(mixed: Any) -> None:
    with pytest.raises(UserError, match=r"stages\.stage\.problems: the corpus has 60 problems"):
        run_stage(config(problems=ProblemsConfig([1], 61)), mixed)


def test_the_teachers_pairs_say_so_too(mixed: Any) -> None:
    run_stage(PreferTeacherStage(pairs_per_problem=1), mixed)
    written_pairs = pairs(mixed.out_dir)
    assert len(written_pairs) == 60
    assert {pair["rejected_author"] for pair in written_pairs} == {"sage"}
    assert {pair["chosen_tokens"] for pair in written_pairs} == {None}


@pytest.mark.parametrize("pairing", ["random", "length_matched"])
def test_many_pairs_are_those_of_all_rollouts_in_memory(
    pairing: str, context: Any, tmp_path: Path
) -> None:
    rng = random.Random(0)
    rollouts = [
        rollout(f"p{problem}", rng.choice((Verdict.CORRECT, Verdict.WRONG)), rng.randint(1, 9))
        for problem in rng.choices(range(700), k=4800)
    ]
    corpus, out_dir = Corpus(tmp_path / "corpus"), tmp_path / "out"
    sides = [[one for one in rollouts if one.correct is correct] for correct in (True, False)]
    for path, side in zip((corpus.accepted_file, corpus.rejected_file), sides, strict=True):
        path.parent.mkdir(exist_ok=True)
        write_rollouts(path, side)
    out_dir.mkdir()
    placed = replace(context, out_dir=out_dir, inputs={"corpus": corpus}, ledger=Ledger())
    metrics = run_stage(PreferTeacherStage(pairs_per_problem=2, pairing=pairing), placed)
    groups = group_by_problem([*sides[0], *sides[1]])
    expected = preference_pairs(groups, 2, context.seed, pairing)
    assert metrics["pairs"] == len(expected) > 1024
    assert read_rollouts(out_dir / "chosen.parquet") == [pair.chosen for pair in expected]
    assert read_rollouts(out_dir / "rejected.parquet") == [pair.rejected for pair in expected]
    assert trained_ids(out_dir) == {group.problem.id for group in groups}
    assert [pair["prompt_id"] for pair in pairs(out_dir)] == [
        pair.chosen.problem.id for pair in expected
    ]
    counts = placed.ledger.as_json()
    assert counts["groups"]["in"] == len(groups)
    assert counts["rollouts"]["in"] == metrics["rollouts"] == 4800
    assert counts["rollouts"]["out"] == 2 * len(expected)


def test_without_a_pair_the_stage_says_so(context: Any, tmp_path: Path) -> None:
    corpus, out_dir = Corpus(tmp_path), tmp_path / "out"
    out_dir.mkdir()
    write_rollouts(corpus.accepted_file, [rollout("a", Verdict.CORRECT)])
    write_rollouts(corpus.rejected_file, [])
    placed = replace(context, out_dir=out_dir, inputs={"corpus": corpus})
    with pytest.raises(UserError, match="none of 1 problems has both a correct and an incorrect"):
        run_stage(PreferTeacherStage(pairs_per_problem=1), placed)
