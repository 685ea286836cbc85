"""Every shipped dataset and benchmark, by its id on the hub, from its rows to tokens.

Here a stand-in for the hub serves invented rows in the real layout of each. `make test-hub` takes
the first rows of the real ones through the same steps, wherever there is a network.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import get_token
from huggingface_hub.constants import ENDPOINT
from omegaconf import DictConfig, OmegaConf

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.config import HubConfig
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify import Verifier
from tests.conftest import Compose
from tests.support.composition import BARE
from tests.support.dataset_reading import LEVELS, Reading, read_dataset
from tests.support.hub import online, stand_in_hub
from tests.support.layout import Layout, Row, write_dataset
from tests.support.layouts import BENCHMARKS, DATASETS

FIRST_ROWS = 200
CASES = [("data", name) for name in DATASETS] + [("benchmark", name) for name in BENCHMARKS]
# One of each kind: a gold in a solution, several chains a problem, choices.
QUICK = (("data", "gsm8k"), ("data", "openr1_math"), ("benchmark", "gpqa_diamond"))
# Of the first rows: least fractions of problems whose gold is read, and of verified solutions. A
# dataset may have many rows without a gold at its beginning, and human solutions that box nothing.
MOST_UNREADABLE_FRAC = 0.1
LEAST_ACCEPTED_FRAC: Mapping[str, float] = {
    "aqua_rat": 0.5,
    "bespoke_stratos": 0.9,
    "deepscaler": 0.2,
    "gsm8k": 0.95,
    "ifeval_like": 0.9,
    "math": 0.9,
    "mbpp": 0.95,
    "metamathqa": 0.9,
    "numinamath": 0.2,
    "openr1_math": 0.4,
    "openthoughts": 0.6,
    "openthoughts_domains": 0.6,
}


def hub_source(
    composed: Compose, kind: str, name: str, **changes: Any
) -> tuple[HubConfig, ProblemSource]:
    """The options of a dataset or a benchmark as they ship, but for `changes`, and its source."""
    options: SourceConfig | None
    if kind == "data":
        words = [f"data.{key}={value}" for key, value in changes.items()]
        options = composed(f"data={name}", *words).root.data
    else:
        words = [f"benchmarks.{name}.data.{key}={value}" for key, value in changes.items()]
        benchmarks = composed(
            BARE, "model=qwen3_0_6b", f"benchmark=[{name}]", *words
        ).root.benchmarks
        options = benchmarks[name].data
    assert isinstance(options, HubConfig)
    return options, options.build()


def rows_by_name(layout: Layout, options: HubConfig) -> dict[str, Row]:
    """Each row of the splits that the options read, by the name that the lab gives it."""
    rows: dict[str, Row] = {}
    for split in options.splits.values():
        pattern = layout.splits[split]
        file = next(file for file in layout.files if Path(file).match(pattern))
        for number, row in enumerate(layout.files[file], start=1):
            rows[f"{options.dataset} ({split}), row {number}"] = row
    return rows


def verdicts(verifier: Verifier, problems: list[Problem], answers: list[str]) -> list[Verdict]:
    # In a box and in a block: a checker takes the answer from one of them.
    texts = [f"\\boxed{{{answer}}}\n```\n{answer}\n```" for answer in answers]
    return [verdict for _, verdict in verifier.verify(problems, texts)]


def test_no_option_of_the_hub_is_forgotten() -> None:
    def reads_the_hub(path: Path) -> bool:
        option = OmegaConf.load(path)
        assert isinstance(option, DictConfig)
        listed = option.get("defaults", [])
        bases = ({"/schema/data@_here_": "hub"}, "/published@_here_", *DATASETS)
        bases += tuple(f"{name}@_here_" for name in BENCHMARKS)
        return any(base in listed for base in bases)

    for folder, cases in (("data", DATASETS), ("benchmark", BENCHMARKS)):
        paths = (CONF / folder).glob("*.yaml")
        assert {path.stem for path in paths if reads_the_hub(path)} == set(cases)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.long], id="-".join(case))
        for case in CASES
    ],
)
def test_a_dataset_is_read_from_its_rows_to_tokens(
    kind: str, name: str, composed: Compose, tmp_path: Path, verifier: Verifier
) -> None:
    layout = (DATASETS if kind == "data" else BENCHMARKS)[name]
    # Dirty rows are a large part of so few, and none is to be held out by its hash.
    changes = {"max_unreadable_frac": 1.0, "first_rows": 50}
    if kind == "data":
        changes |= {"test_frac": 0.0, "validation_frac": 0.0}
    options, source = hub_source(composed, kind, name, **changes)
    write_dataset(layout, tmp_path / "repository")
    with (
        stand_in_hub(tmp_path / "repository", options.dataset, options.revision) as hub,
        online(hub.url, tmp_path),
    ):
        reading = read_dataset(source, LEVELS, tmp_path, verifier)
    assert len(options.revision) == 40
    assert source.content() == f"{options.dataset}@{options.revision}"
    rows = rows_by_name(layout, options)
    assert reading.rows["in"] == len(rows)
    dropped = Counter(row.dropped for row in rows.values() if row.dropped)
    assert reading.rows.get("dropped", {}) == dropped
    check_problems(reading, rows, options, verifier)
    if options.rows.solutions is not None:
        check_chains(reading, rows)


def check_problems(
    reading: Reading, rows: Mapping[str, Row], options: HubConfig, verifier: Verifier
) -> None:
    used = {name: row for name, row in rows.items() if not row.dropped}
    problems = {str(problem.metadata["row"]): problem for problem in reading.problems}
    assert problems.keys() == used.keys()
    unreadable = {problem.metadata["row"] for problem in reading.unreadable}
    assert unreadable == {name for name, row in used.items() if row.unreadable}
    readable = [(problems[name], row) for name, row in used.items() if not row.unreadable]
    for problem, row in readable:
        assert problem.level == row.level
        assert problem.checker == (row.checker or options.rows.checker)
        # The letter of a shuffled choice depends on the question alone.
        assert problem.gold == row.gold or options.rows.shuffled
    questions = [problem for problem, _ in readable]
    right, wrong = [row.right for _, row in readable], [row.wrong for _, row in readable]
    assert verdicts(verifier, questions, right) == [Verdict.CORRECT] * len(right)
    assert verdicts(verifier, questions, wrong) == [Verdict.WRONG] * len(wrong)
    assert min(reading.prompt_tokens) > 0


def check_chains(reading: Reading, rows: Mapping[str, Row]) -> None:
    expected = Counter(outcome for row in rows.values() for outcome in row.solutions)
    assert +reading.rollouts == expected
    assert reading.curated == len(reading.documents) == expected["accepted"]
    assert min(reading.trained) > 0
    assert all(t < n for t, n in zip(reading.trained, reading.documents, strict=True))


@pytest.mark.hub
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_first_rows_of_the_hub_are_read(
    kind: str, name: str, composed: Compose, tmp_path: Path, verifier: Verifier
) -> None:
    if name == "gpqa_diamond" and get_token() is None:
        pytest.skip("GPQA's owners ask for a login: hf auth login, or HF_TOKEN")
    options, source = hub_source(composed, kind, name, first_rows=FIRST_ROWS)
    with online(ENDPOINT, tmp_path):
        reading = read_dataset(source, LEVELS, tmp_path, verifier)
    assert 0 < reading.rows["in"] <= FIRST_ROWS * len(options.splits)
    assert reading.problems
    assert len(reading.unreadable) <= MOST_UNREADABLE_FRAC * len(reading.problems)
    readable = [problem for problem in reading.problems if problem not in reading.unreadable]
    # Instructions are no answer of their own.
    answered = [problem for problem in readable if problem.checker != "instructions"]
    golds = verdicts(verifier, answered, [problem.gold for problem in answered])
    assert set(golds) <= {Verdict.CORRECT}
    assert (len(golds) > 0) is (options.rows.checker != "instructions")
    assert min(reading.prompt_tokens) > 0
    if options.rows.solutions is not None:
        accepted = reading.rollouts["accepted"]
        assert accepted >= LEAST_ACCEPTED_FRAC[name] * reading.rollouts.total()
        assert min(reading.trained) > 0
