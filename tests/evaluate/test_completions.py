"""Completions that are read some at a time give what all of them in memory would."""

import random
from collections import Counter
from pathlib import Path

import numpy as np

from reasoning_lab.commands.rescore import rescore
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import RolloutWriter, read_rollouts
from reasoning_lab.evaluate.benchmark import measured
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.statistics import pass_at_1
from reasoning_lab.types import Rollout, RolloutGroup, Verdict
from tests.support.rollouts import rollout

SAMPLES = 3


def groups(count: int) -> list[list[Rollout]]:
    """Of no text, so that the verifier finds no answer in any."""
    rng = random.Random(0)
    return [
        [
            rollout(f"p{problem}", rng.choice(list(Verdict)), rng.randint(0, 5), f"f{problem % 4}")
            for _ in range(SAMPLES)
        ]
        for problem in range(count)
    ]


def write(folder: Path, rollouts: list[Rollout]) -> Evaluation:
    evaluation = Evaluation(folder)
    with RolloutWriter(evaluation.completions_file) as writer:
        for start in range(0, len(rollouts), 1000):
            writer.write(rollouts[start : start + 1000])
    return evaluation


def test_samples_are_those_of_each_problem(tmp_path: Path) -> None:
    every = groups(1700)  # No batch of rows ends with a problem.
    evaluation = write(tmp_path, [one for group in every for one in group])
    ids, correct, tokens, domains = evaluation.samples(SAMPLES)
    assert domains == ["mathematics"] * 1700
    assert ids == [group[0].problem.id for group in every]
    assert correct.tolist() == [[one.correct for one in group] for group in every]
    assert tokens.tolist() == [[len(one.completion.token_ids) for one in group] for group in every]
    assert (str(correct.dtype), str(tokens.dtype)) == ("bool", "int64")


def test_metrics_of_a_stream_are_those_of_all_completions() -> None:
    every = [RolloutGroup(group[0].problem, group) for group in groups(40)]
    metrics = measured(iter(every))
    rollouts = [one for group in every for one in group.rollouts]
    lengths = {
        correct: [len(one.completion.token_ids) for one in rollouts if one.correct is correct]
        for correct in (True, False)
    }
    assert metrics["correct_tokens"] == np.mean(lengths[True])
    assert metrics["wrong_tokens"] == np.mean(lengths[False])
    assert metrics["completion_tokens"] == np.mean([*lengths[True], *lengths[False]])
    assert metrics["truncated_frac"] == 0
    verdicts = Counter(one.verdict for one in rollouts)
    for verdict in Verdict:
        assert metrics[f"{verdict}_frac"] == verdicts[verdict] / len(rollouts)
    assert list(metrics["families"]) == ["f0", "f1", "f2", "f3"]
    for number, mean in enumerate(metrics["families"].values()):
        assert mean == np.mean([group.pass_rate for group in every[number::4]])


def test_scattered_completions_are_verified_again_in_their_order(tmp_path: Path) -> None:
    rollouts = [one for group in groups(400) for one in group]
    random.Random(0).shuffle(rollouts)
    write(tmp_path, rollouts)
    result, path, _ = rescore(tmp_path, None, HardwareConfig(), tmp_path / "new")
    by_problem: dict[str, list[bool]] = {}
    for one in rollouts:
        by_problem.setdefault(one.problem.id, []).append(one.correct)
    assert result.before == pass_at_1(list(by_problem.values()))
    assert result.after.mean == 0
    changed = Counter(f"{one.verdict} -> unparseable" for one in rollouts)
    del changed["unparseable -> unparseable"]
    assert result.changed == changed
    rescored = read_rollouts(path)
    assert [one.problem for one in rescored] == [one.problem for one in rollouts]
    assert {one.verdict for one in rescored} == {Verdict.UNPARSEABLE}
