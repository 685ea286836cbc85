"""`all`: the number of problems that a file has, without a guess."""

from pathlib import Path

import pytest

from reasoning_lab.commands.preflight import check_data
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.types import Split, UserError
from tests.support.composition import composed_recipe
from tests.support.sources import everything, file_source, write_lines


def numbers(path: Path, count: int) -> Path:
    rows = [
        {"question": f"{n} + 1?", "answer": str(n + 1), "level": n % 3 + 1} for n in range(count)
    ]
    return write_lines(path, rows)


def own(path: Path, *overrides: str) -> tuple[str, ...]:
    return ("recipe=own", "data=jsonl", f"data.path={path}", "model.path=some/model", *overrides)


def test_all_is_the_number_that_the_split_has(tmp_path: Path) -> None:
    path = numbers(tmp_path / "numbers.jsonl", 90)
    splits = everything(file_source(path, 0.15, 0.1), (1, 2, 3))
    counts = {split: len(problems) for split, problems in splits.items()}
    recipe = composed_recipe(*own(path))
    stages = recipe.root.stages
    distill = stages["distill"]
    assert isinstance(distill, DistillStage)
    assert distill.problems.count == counts[Split.TRAIN]
    assert distill.validation == counts[Split.VALIDATION]
    assert recipe.root.benchmarks["own"].count == counts[Split.TEST]
    check_data([recipe])
    # One who writes the number has the same run.
    same = composed_recipe(*own(path, f"stages.distill.problems.count={counts[Split.TRAIN]}"))
    assert [node.fingerprint for node in same.nodes] == [node.fingerprint for node in recipe.nodes]


def test_levels_narrow_what_all_is(tmp_path: Path) -> None:
    path = numbers(tmp_path / "numbers.jsonl", 90)
    available = file_source(path, 0.15, 0.1).available(Split.TRAIN, [2])
    recipe = composed_recipe(*own(path, "stages.distill.problems.levels=[2]"))
    distill = recipe.root.stages["distill"]
    assert isinstance(distill, DistillStage)
    assert distill.problems.count == available


def test_a_protocol_takes_fewer_of_all(tmp_path: Path) -> None:
    path = numbers(tmp_path / "numbers.jsonl", 90)
    everything_of = composed_recipe(*own(path)).root.benchmarks["own"].count
    assert composed_recipe(*own(path, "protocol.count=3")).root.benchmarks["own"].count == 3
    many = composed_recipe(*own(path, "protocol.count=5000")).root.benchmarks["own"].count
    assert many == everything_of


def test_a_split_without_problems_is_told_with_the_numbers(tmp_path: Path) -> None:
    path = numbers(tmp_path / "few.jsonl", 12)
    with pytest.raises(UserError) as refusal:
        composed_recipe(*own(path, "data.validation_frac=0.0"))
    message = str(refusal.value)
    assert message.startswith("stages.distill.validation=all: 'few.jsonl' has no validation prompt")
    assert "validation 0" in message
    assert message.endswith("add rows or raise data.validation_frac")


def test_a_generator_has_no_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.rl\.problems\.count=all: .* give a number"):
        composed_recipe("experiment=smoke", "stages.rl.problems.count=all")


def test_data_elsewhere_is_counted_when_it_is_there() -> None:
    recipe = composed_recipe("recipe=own", "data=gsm8k", "model.path=some/model")
    distill = recipe.root.stages["distill"]
    assert isinstance(distill, DistillStage)
    assert distill.problems.count == "all"
    assert distill.workload().rows is None
    assert check_data([recipe], local_only=True)


@pytest.mark.parametrize("count", ["many", "0", "1.5"])
def test_other_words_are_refused(count: str) -> None:
    with pytest.raises(
        UserError, match=r"benchmarks\.heldout\.count.* give (1 or more|an integer or all)"
    ):
        composed_recipe("experiment=smoke", f"benchmarks.heldout.count={count}")


def test_a_benchmark_has_one_limit_for_all_policies() -> None:
    with pytest.raises(UserError, match="compared under one limit"):
        composed_recipe("recipe=tiny", "benchmarks.heldout.sampling.max_new_tokens=auto")
