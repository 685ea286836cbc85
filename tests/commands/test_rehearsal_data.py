"""A few rows of each dataset for a rehearsal: of a file, of the hub, or in a shipped layout."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.commands.compose import typed
from reasoning_lab.commands.rehearsal_data import Sampler
from reasoning_lab.config.components import SourceConfig
from reasoning_lab.data.sources.config import FileConfig, HubConfig, MixtureConfig
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.types import Problem, Split, UserError
from tests.support.composition import composed_config
from tests.support.hub import DATASET, REVISION, stand_in_hub
from tests.support.sources import write_lines

MAPPING = RowMapping(prompt="q", gold="a", gold_in="boxed", solutions="a", level=1)


def sampler(folder: Path, factor: float = 1.0) -> Sampler:
    return Sampler(folder / "sampled", factor, online=False, levels=[1])


def problems(source: SourceConfig, split: Split = Split.TRAIN, count: int = 8) -> list[Problem]:
    return list(source.build().problems(split, [1], count, 0))


def long_row(number: int) -> dict[str, str]:
    """A hundred lines of a thought with its marks and an answer in the last line."""
    thought = "\n".join(f"Line {line} of thought {number} says little." for line in range(100))
    return {
        "q": f"What is {number} + 1?",
        "a": f"<think>\n{thought}\n</think>\nIt is \\boxed{{{number + 1}}}.",
    }


def test_long_texts_are_cut_and_keep_marks_and_answer(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "long.jsonl", [long_row(n) for n in range(40)])
    options = FileConfig(path=str(path), rows=MAPPING)
    sampled = sampler(tmp_path, factor=0.1).sampled(options, "data")
    whole = {problem.id: problem for problem in problems(sampled.whole)}
    for problem in problems(sampled.cut):
        (text,) = problem.metadata["solutions"]
        (uncut,) = whole[problem.id].metadata["solutions"]
        assert problem.gold == whole[problem.id].gold
        # A tenth, with room for the lines that are kept for their marks.
        assert len(text) < 0.15 * len(uncut)
        assert text.startswith("<think>\nLine 0")
        assert "\n</think>\nIt is \\boxed{" in text


def test_short_texts_stay(tmp_path: Path) -> None:
    rows = [{"q": f"What is {n} + 1?", "a": f"\\boxed{{{n + 1}}}"} for n in range(40)]
    path = write_lines(tmp_path / "short.jsonl", rows)
    options = FileConfig(path=str(path), rows=MAPPING)
    sampled = sampler(tmp_path, factor=0.001).sampled(options, "data")
    assert problems(sampled.cut) == problems(sampled.whole)


def test_each_level_keeps_rows_and_each_split_has_problems(tmp_path: Path) -> None:
    """Level 2 is one row in fifty, behind 900 of level 1."""
    rows = [{"q": f"What is {n} + 1?", "a": f"{n + 1}", "level": 1 + (n > 900)} for n in range(920)]
    path = write_lines(tmp_path / "levels.jsonl", rows)
    mapping = RowMapping(prompt="q", gold="a")
    options = FileConfig(path=str(path), rows=mapping, test_frac=0.01, validation_frac=0.01)
    cut = sampler(tmp_path).sampled(options, "data").cut.build()
    for split in Split:
        assert len(list(cut.problems(split, [1], 3, 0))) == 3
    assert len(list(cut.problems(Split.TRAIN, [2], 5, 0))) == 5


def test_nothing_is_held_out_where_the_run_holds_nothing_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "all.jsonl", [long_row(n) for n in range(40)])
    options = FileConfig(path=str(path), rows=MAPPING, test_frac=0.0, validation_frac=0.0)
    cut = sampler(tmp_path).sampled(options, "data").cut
    with pytest.raises(UserError, match="0 distinct validation prompts"):
        problems(cut, Split.VALIDATION)


def test_the_parts_of_a_mixture_have_rows_in_their_layouts(tmp_path: Path) -> None:
    model = ("recipe=evaluate", "model=checkpoint", "model.path=a/b")
    options = typed(composed_config(*model, "data=long_cot")).data
    assert isinstance(options, MixtureConfig)
    of = sampler(tmp_path)
    cut = of.sampled(options, "data").cut
    drawn = problems(cut, count=20)
    # Ten, nine and one of twenty.
    families = [problem.family for problem in drawn]
    assert families.count("openthoughts") == 9
    assert families.count("bespoke_stratos") == 1
    assert of.stand_ins == [f"data.sources.{name}" for name in options.sources]
    assert len(of.notes) == 3


def test_a_dataset_of_which_nothing_is_known_has_the_columns_of_its_mapping(tmp_path: Path) -> None:
    options = HubConfig(
        dataset="some/body", revision="a" * 40, splits={"train": "train"}, rows=MAPPING
    )
    of = sampler(tmp_path)
    assert len(problems(of.sampled(options, "data").cut)) == 8
    assert "its layout is not known" in of.notes[0]


_SAMPLE = f"""
import json, sys
from pathlib import Path
from reasoning_lab.commands.rehearsal_data import Sampler, hub_answers
from reasoning_lab.data.sources.config import HubConfig
from reasoning_lab.data.sources.row_mapping import RowMapping
options = HubConfig(dataset="{DATASET}", revision="{REVISION}", splits={{"train": "train"}},
                    rows=RowMapping(prompt="q", gold="a", level=1))
sampler = Sampler(Path(sys.argv[1]), 1.0, hub_answers(), [1])
source = sampler.sampled(options, "data").cut.build()
names = [problem.prompt for problem in source.problems("train", [1], 30, 0)]
print(json.dumps([names, sampler.notes]))
"""


def test_with_a_network_rows_are_the_datasets_first_ones(tmp_path: Path) -> None:
    folder, home = tmp_path / "dataset", tmp_path / "home"
    folder.mkdir()
    rows: list[dict[str, Any]] = [{"q": f"What is {n} + 1?", "a": str(n + 1)} for n in range(900)]
    write_lines(folder / "train.jsonl", rows)
    with stand_in_hub(folder) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_CACHE": str(home / "datasets")}
        done = subprocess.run(
            [sys.executable, "-c", _SAMPLE, str(tmp_path / "sampled")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    names, notes = json.loads(done.stdout)
    assert notes == []
    first = {row["q"] for row in rows[:200]}
    assert set(names) <= first


def test_what_a_reachable_hub_refuses_is_no_made_up_row(tmp_path: Path) -> None:
    """A wrong name would stop the run too; no hub of this test has such a dataset."""
    options = HubConfig(
        dataset="nobody/nothing", revision="0" * 40, splits={"train": "train"}, rows=MAPPING
    )
    connected = Sampler(tmp_path / "sampled", 1.0, online=True, levels=[1])
    with pytest.raises(UserError, match=r"^data\.dataset: cannot load 'nobody/nothing', split 'tr"):
        connected.sampled(options, "data")
    assert connected.notes == connected.stand_ins == []
