"""A write-up, the config that made it and what it expects belong together."""

from pathlib import Path

import pytest

from reasoning_lab.commands import api as lab
from reasoning_lab.commands.preflight import check_data
from reasoning_lab.commands.reproduce import check_runs, experiment_folder
from reasoning_lab.report.expected import EXPECTED, checked_expected
from reasoning_lab.types import UserError
from tests.conftest import Compose

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
TRAIN, TEST = SHARED / "gsm8k_train.jsonl", SHARED / "gsm8k_test.jsonl"
LOCAL_BENCHMARK = f"benchmarks.gsm8k.data.path={TEST}"


def test_each_numbered_experiment_has_its_config_and_each_config_its_write_up() -> None:
    written = {path.parent.name for path in ROOT.glob("experiments/[0-9]*_*/README.md")}
    # A file, or a folder with a file for each arm.
    configured = {path.stem for path in ROOT.glob("conf/experiment/[0-9]*_*")}
    assert written
    assert written == configured


def test_what_a_page_expects_follows_from_its_outcomes_and_its_config_ends_in_it() -> None:
    for folder in sorted(path.parent for path in ROOT.glob(f"experiments/*/{EXPECTED}")):
        assert experiment_folder(folder.name) == folder
        assert (folder / "README.md").is_file()
        expected, outcomes = checked_expected(folder)
        runs = lab.sweep(*expected.overrides, f"seed={max(outcomes.seeds) + 1}")
        check_runs(expected, outcomes, runs)


needs_gsm8k = pytest.mark.skipif(
    not (TRAIN.exists() and TEST.exists()), reason="the shared data is not here"
)


@needs_gsm8k
@pytest.mark.parametrize(
    "overrides",
    [
        [f"data.path={TRAIN}"],
        [
            "data=mixture",
            "data@data.sources.gym=tiny",
            "data.sources.gsm8k.rows.level=1",
            "teacher@stages.distill.teacher=mixed",
            f"data.sources.gsm8k.path={TRAIN}",
        ],
    ],
    ids=["gsm8k", "mixture"],
)
def test_gsm8k_has_what_its_experiment_asks_for(
    overrides: list[str], composed: Compose, tmp_path: Path
) -> None:
    recipe = composed(
        "experiment=gsm8k", *overrides, LOCAL_BENCHMARK, f"paths.runs={tmp_path / 'runs'}"
    )
    assert check_data([recipe], local_only=True) == []


@needs_gsm8k
def test_a_count_that_gsm8k_does_not_have_is_refused(composed: Compose, tmp_path: Path) -> None:
    recipe = composed(
        "experiment=gsm8k",
        f"data.path={TRAIN}",
        LOCAL_BENCHMARK,
        "stages.distill.problems.count=7400",
        f"paths.runs={tmp_path / 'runs'}",
    )
    with pytest.raises(UserError, match=r"^stages\.distill\.problems: "):
        check_data([recipe])
