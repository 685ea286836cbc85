"""Datasets of the hub without a hub, and mixtures of sources."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.data.sources.config import FileConfig, HubConfig, MixtureConfig
from reasoning_lab.data.sources.problem_source import split_of
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.types import Problem, Split, UserError
from tests.support.sources import GOOD, everything, write_lines


def hub(dataset: str, **changes: Any) -> TableSource:
    options: dict[str, Any] = {
        "revision": "main",
        "licence": "MIT",
        "splits": {"train": "train", "test": "test"},
        "test_frac": 0.0,
        "validation_frac": 0.1,
    }
    return HubConfig(dataset=dataset, **(options | changes)).build()


def folder_of(folder: Path, train: range, test: range) -> Path:
    """What a dataset of the hub is on the disk; `datasets` loads it by its path."""
    folder.mkdir()
    for name, numbers in (("train", train), ("test", test)):
        rows = [{"prompt": f"{n}?", "gold": f"{name} {n}"} for n in numbers]
        write_lines(folder / f"{name}.jsonl", rows)
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_keeps_its_own_test_split(tmp_path: Path, streaming: bool) -> None:
    folder = folder_of(tmp_path / "numbers", range(100), range(90, 120))
    source = hub(str(folder), streaming=streaming)
    by_split = everything(source)
    # Ten prompts of its training split are in its test split, where they stay.
    assert {p.gold for p in by_split[Split.TEST]} == {f"test {n}" for n in range(90, 120)}
    assert len(by_split[Split.TRAIN]) + len(by_split[Split.VALIDATION]) == 90
    assert all(split_of(p.id, 0.0, 0.1) is Split.TRAIN for p in by_split[Split.TRAIN])
    assert by_split[Split.TEST][0].metadata["row"].startswith(f"{folder} (test), row ")
    assert source.fixed_split(by_split[Split.TEST][0].id) is Split.TEST
    assert source.fixed_split(by_split[Split.TRAIN][0].id) is None


def test_what_was_read_once_needs_no_network(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "numbers", range(40), range(40, 50))
    expected = list(hub(str(folder)).problems(Split.TEST, [1], 10, 0))
    shutil.rmtree(folder)
    assert list(hub(str(folder)).problems(Split.TEST, [1], 10, 0)) == expected


def test_without_network_or_copy_the_remedy_is_one_sentence() -> None:
    source = hub("nobody/nothing", revision="abc")
    assert source.content() == "nobody/nothing@abc"
    assert source.provenance() == {"name": "nobody/nothing", "revision": "abc", "licence": "MIT"}
    with pytest.raises(UserError) as refusal:
        list(source.problems(Split.TRAIN, [1], 1, 0))
    message = str(refusal.value)
    assert "\n" not in message
    for part in ("'nobody/nothing'", "at abc", "connect once", "data.path"):
        assert part in message


def test_a_local_copy_takes_the_place_of_the_hub(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "numbers", range(40), range(40, 50))
    copy = hub("some/numbers", path=str(folder))
    (test, *_) = everything(copy)[Split.TEST]
    assert test.metadata["row"].startswith("some/numbers (test), row ")
    assert copy.provenance()["revision"] == f"local copy {copy.content()}"
    file = hub("some/numbers", path=str(folder / "train.jsonl"), test_frac=0.5)
    assert sum(map(len, everything(file).values())) == 40
    assert file.content() != copy.content()
    with pytest.raises(UserError, match=r"data\.path: cannot read split 'dev'.*data\.splits"):
        hub("some/numbers", path=str(folder), splits={"train": "dev"})
    with pytest.raises(UserError, match=r"data\.path: there is no file"):
        hub("some/numbers", path=str(tmp_path / "gone"))
    first = hub("some/numbers", path=str(folder), first_rows=15)
    by_split = everything(first)
    assert {p.gold for p in by_split[Split.TEST]} == {f"test {n}" for n in range(40, 50)}
    trained = [*by_split[Split.TRAIN], *by_split[Split.VALIDATION]]
    assert {p.gold for p in trained} == {f"train {n}" for n in range(15)}
    with pytest.raises(UserError, match=r"data\.first_rows: .* is a file, which is read whole"):
        hub("some/numbers", path=str(folder / "train.jsonl"), first_rows=15)


@pytest.mark.parametrize("splits", [{}, {"train": "train", "dev": "dev"}])
def test_splits_that_are_not_ours_are_refused(splits: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"data\.splits: .*must name"):
        hub("some/numbers", splits=splits)


def file_options(path: Path, **rows: Any) -> FileConfig:
    return FileConfig(path=str(path), rows=RowMapping(**rows))


def test_mixture_draws_by_weight_and_spreads_its_sources(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"prompt": f"{name} {n}", "gold": "1"} for n in range(400)]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    sources: dict[str, SourceConfig] = {
        name: file_options(tmp_path / f"{name}.jsonl", family=name) for name in "ab"
    }
    mixture = MixtureConfig(sources, {"a": 3, "b": 1}, 0.1, 0.1).build()
    problems = list(mixture.problems(Split.TRAIN, [1], 201, 0))
    assert len({problem.id for problem in problems}) == 201
    # 150.75 and 50.25: the larger rest takes what rounding leaves.
    assert Counter(problem.family for problem in problems) == {"a": 151, "b": 50}
    first = Counter(problem.family for problem in problems[:100])
    assert 10 <= first["b"] <= 40
    assert problems == list(mixture.problems(Split.TRAIN, [1], 201, 0))
    assert problems != list(mixture.problems(Split.TRAIN, [1], 201, 1))
    assert mixture.provenance()["name"] == "a.jsonl; b.jsonl"
    with pytest.raises(UserError, match=r"b\.jsonl' has 0 distinct train prompts at levels \[2"):
        list(mixture.problems(Split.TRAIN, [2], 4, 0))


def test_mixture_gives_a_prompt_once_and_in_one_split_only(tmp_path: Path) -> None:
    """Prompts 0 to 59 are in both; 40 to 59 are the dataset's own test split."""
    lines = write_lines(
        tmp_path / "mine.jsonl", [{"prompt": f"{n}?", "gold": "mine"} for n in range(100)]
    )
    folder = folder_of(tmp_path / "numbers", range(40), range(40, 60))
    theirs = HubConfig(
        dataset=str(folder), revision="main", splits={"train": "train", "test": "test"}
    )
    sources: dict[str, SourceConfig] = {"mine": file_options(lines), "theirs": theirs}
    mixture = MixtureConfig(sources, {"mine": 1, "theirs": 1}, 0.1, 0.2).build()
    ids = {}
    for split, count in ((Split.TRAIN, 40), (Split.VALIDATION, 8), (Split.TEST, 12)):
        problems = list(mixture.problems(split, [1], count, 3))
        ids[split] = {problem.id for problem in problems}
        assert len(ids[split]) == len(problems) == count
        halves = Counter(problem.gold == "mine" for problem in problems)
        assert halves == {True: count // 2, False: count // 2}
    assert not ids[Split.TRAIN] & ids[Split.VALIDATION]
    assert not (ids[Split.TRAIN] | ids[Split.VALIDATION]) & ids[Split.TEST]
    own_test = {Problem(f"{n}?", "", "", "").id for n in range(40, 60)}
    assert not (ids[Split.TRAIN] | ids[Split.VALIDATION]) & own_test


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": 1, "c": 1}, {}])
def test_weights_name_the_sources(tmp_path: Path, weights: dict[str, float]) -> None:
    (tmp_path / "a").write_text(GOOD)
    sources: dict[str, SourceConfig] = {name: file_options(tmp_path / "a") for name in "ab"}
    with pytest.raises(UserError, match=r"data\.weights: .*sources are a, b"):
        MixtureConfig(sources, weights, 0.1, 0.1).build()
    with pytest.raises(UserError, match="are no shares"):
        MixtureConfig(sources, {"a": 0, "b": 0}, 0.1, 0.1).build()
