"""Rows in the layouts of the datasets that conf names, made up where a dataset is not here."""

from collections.abc import Iterator

import pytest

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.config import HubConfig, MixtureConfig
from reasoning_lab.data.sources.layouts import assumed_rows, layout_rows
from reasoning_lab.data.sources.row_mapping import RowMapping
from tests.support.composition import composed_recipe

MODEL = ("recipe=evaluate", "model=checkpoint", "model.path=a/b")
OPTIONS = [
    f"{kind}={name}"
    for kind in ("data", "benchmark")
    for name in sorted(file.stem for file in (CONF / kind).glob("*.yaml"))
    # Those are of the user's own data.
    if (kind, name)
    not in (("data", "custom"), ("data", "jsonl"), ("data", "taskset"), ("benchmark", "own"))
]


def hub_sources(source: SourceConfig | None) -> Iterator[HubConfig]:
    if isinstance(source, MixtureConfig):
        for part in source.sources.values():
            yield from hub_sources(part)
    elif isinstance(source, HubConfig):
        yield source


def sources_of(option: str) -> list[HubConfig]:
    kind, _, name = option.partition("=")
    root = composed_recipe(*MODEL, option if kind == "data" else f"benchmark=[{name}]").root
    return list(hub_sources(root.data if kind == "data" else root.benchmarks[name].data))


@pytest.mark.parametrize("option", OPTIONS)
def test_each_shipped_option_reads_the_layout_of_its_dataset(option: str) -> None:
    for source in sources_of(option):
        for split in source.splits.values():
            rows = layout_rows(source.dataset, source.config, split, 12)
            assert rows, f"{source.dataset} has no layout of '{split}'"
            assert all(map(source.rows.selects, rows))
            problems = [source.rows.problem(row, "row") for row in rows]
            assert None not in problems
            assert len({problem.id for problem in problems if problem}) == 12


@pytest.mark.parametrize("option", OPTIONS)
def test_rows_assumed_from_a_mapping_are_read_by_it(option: str) -> None:
    for source in sources_of(option):
        rows = assumed_rows(source.rows, [1, 2, 3, 4, 5], "somebody/else", 12)
        assert all(map(source.rows.selects, rows))
        problems = [source.rows.problem(row, "row") for row in rows]
        assert len({problem.id for problem in problems if problem}) == 12


def test_a_dataset_that_is_not_known_has_no_layout() -> None:
    assert layout_rows("somebody/else", None, "train", 4) is None


@pytest.mark.parametrize(("config", "split"), [("socratic", "train"), ("main", "trian")])
def test_a_split_or_configuration_that_a_known_dataset_lacks_has_no_rows(
    config: str, split: str
) -> None:
    assert layout_rows("openai/gsm8k", config, split, 4) == []


def test_a_row_has_the_answer_that_its_numbers_give() -> None:
    """`a … then b …` has the gold a + b, and the second of the two solutions misses it by one."""
    rows = layout_rows("open-r1/OpenR1-Math-220k", "default", "train", 12)
    assert rows is not None
    for row in rows:
        numbers = [int(word) for word in row["problem"].split() if word.isdecimal()]
        assert int(row["answer"]) == sum(numbers)
        right, wrong = row["generations"]
        assert f"\\boxed{{{sum(numbers)}}}" in right
        assert f"\\boxed{{{sum(numbers)}}}" not in wrong


def test_a_mapping_into_messages_gets_messages() -> None:
    mapping = RowMapping(
        prompt="chat.user.content", gold="answer.value", solutions="chat.assistant.content"
    )
    (row,) = assumed_rows(mapping, [3], "x", 1)
    assert {message["role"] for message in row["chat"]} == {"assistant", "user"}
    problem = mapping.problem(row, "row")
    assert problem is not None
    assert problem.level == 3
    assert problem.gold == row["answer"]["value"]
