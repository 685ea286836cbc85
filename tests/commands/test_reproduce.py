"""`reproduce` as a user meets it: an experiment's runs, its verdict, and what it refuses."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.commands.reproduce import EXPERIMENTS, experiment_folder, new_seeds
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.report.expected import EXPECTED, read_expected, update_expected
from reasoning_lab.report.outcomes import OUTCOMES, read_outcomes
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, lab_here
from tests.support.outcomes import Policy, write_page

CLAIM = {
    "benchmark": "heldout",
    "stage": "rl",
    "baseline": "pretrain",
    "margin_points": 30,
    "reason": "fourteen problems say little",
}


@pytest.fixture
def finished_run(smoke_run: Path, tmp_path: Path) -> Path:
    """A folder in which the smoke recipe has run with seed 0, where nobody is right."""
    shutil.copytree(smoke_run / "runs" / "store", tmp_path / "runs" / "store")
    return tmp_path


def write_expected(folder: Path, overrides: list[str], *claims: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"overrides": overrides, "comparisons": claims})
    (folder / EXPECTED).write_text(text, encoding="utf-8")


def page_of(folder: Path, right: int, prompts: list[str] | None = None, **changes: Any) -> str:
    """A page of seeds 1, 2 and 3, whose last policy solves so many of the smoke run's problems."""
    store = folder / "runs" / "store" / "evaluate"
    rollouts = read_rollouts(next(store.glob("*")) / COMPLETIONS)
    prompts = prompts or [one.problem.prompt for one in rollouts]
    policies: list[Policy] = [
        ("none", stage, seed) for seed in (1, 2, 3) for stage in ("pretrain", "rl")
    ]
    # Another seed solves another problem.
    write_page(
        folder / "page",
        folder / "evaluations",
        policies,
        prompts,
        lambda policy, problem, _: policy[1] == "rl" and (problem + policy[2]) % 14 < right,
    )
    write_expected(folder / "page", SMOKE, {**CLAIM, **changes})
    update_expected(folder / "page")
    return "page"


def result_of(folder: Path) -> dict[str, Any]:
    (file,) = (folder / "runs" / "reproductions").glob("*/reproduce.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_a_new_seed_of_the_store_is_held_against_a_page(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page solves 9 of 14 problems and the new seed none; `test_expected.py` has the others."""
    name = page_of(finished_run, 9)
    assert lab_here("reproduce", name, "seeds=0", cwd=finished_run) == 0
    out = capsys.readouterr().out
    assert "done in" not in out  # Everything was in the store.
    assert "±30" in out
    assert "page is different: " in out.splitlines()[-1]
    result = result_of(finished_run)
    assert (result["experiment"], result["verdict"]) == ("page", "different")
    assert (result["page_seeds"], result["seeds"]) == ([1, 2, 3], [0])
    (comparison,) = result["comparisons"]
    assert comparison["page_difference"] == pytest.approx(9 / 14, abs=1e-6)
    assert comparison["difference"] == 0


def test_a_report_of_a_page_needs_no_store(
    finished_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    page = elsewhere / "page"
    assert lab_here("report", *SMOKE, f"outcomes={page}", cwd=finished_run) == 0
    assert lab_here("report", f"path={page}", "paths.runs=other", cwd=elsewhere) == 0
    (ours,) = (finished_run / "runs" / "reports").glob("*")
    (theirs,) = (elsewhere / "other" / "reports").glob("*")
    names = sorted(path.name for path in ours.iterdir())
    assert sorted(path.name for path in theirs.iterdir()) == names
    differing = [n for n in names if (ours / n).read_bytes() != (theirs / n).read_bytes()]
    # The page shows rollouts, curves and configs, which outcomes do not have.
    assert differing == ["report.html"]


def test_seeds_that_left_the_store_are_taken_from_the_outcomes(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", *SMOKE, "outcomes=page"]
    assert lab_here(*words, cwd=finished_run) == 0
    file = finished_run / "page" / OUTCOMES
    first = file.read_bytes()
    shutil.rmtree(finished_run / "runs" / "store" / "evaluate")
    capsys.readouterr()
    assert lab_here(*words, cwd=finished_run) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"1 recipe is no longer in the store: page/{OUTCOMES} has what came of it." in told
    assert file.read_bytes() == first
    # Another policy, or an evaluation of another kind, is nothing that these outcomes know.
    for other in ("stages.sft.optimization.learning_rate=1e-4", "protocol.samples=2"):
        assert "lacks" in error_of(finished_run, capsys, *words, other)
    assert "lacks" in error_of(finished_run, capsys, "report", *SMOKE)
    assert file.read_bytes() == first


def test_a_report_does_not_write_over_outcomes_that_it_lacks(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page_of(finished_run, 5)
    first = (finished_run / "page" / OUTCOMES).read_bytes()
    told = error_of(finished_run, capsys, "report", *SMOKE, "outcomes=page")
    assert told == (
        f"page/{OUTCOMES}: it has 'pretrain' of seed 1 on 'heldout' (the full recipe) and 5 more, "
        "which this report lacks; name all arms, seeds and benchmarks, or another folder"
    )
    assert (finished_run / "page" / OUTCOMES).read_bytes() == first
    # Nor those of another arm with the same seed.
    arm = write_page(
        finished_run / "arm",
        finished_run / "other",
        [("dpo", "sft", 0)],
        ["2 + 3?"],
        lambda *_: True,
    )[0][0]
    told = error_of(finished_run, capsys, "report", *SMOKE, "outcomes=arm")
    assert f"'{arm.stage}' of seed {arm.seed} on 'heldout' (without dpo), which this" in told


def error_of(
    folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str, runs_exist: bool = False
) -> str:
    """The sentence with which a command ends before it has run anything."""
    capsys.readouterr()
    assert lab_here(*arguments, cwd=folder) == 2
    sentence = capsys.readouterr().err.strip()
    assert len(sentence.splitlines()) == 1
    assert not list((folder / "runs").glob("sweeps"))
    return sentence


def test_what_would_not_end_in_the_comparison_is_refused_before_it_runs(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        return error_of(finished_run, capsys, "reproduce", "page", *words)

    page_of(finished_run, 0)
    assert "seeds=3,4: the page has used 3" in refused("seeds=3,4")
    assert "seed=4: reproduce runs what" in refused("seed=4")
    assert "ablate=rl: reproduce runs what" in refused("ablate=rl")
    assert "model.dtype: give one value" in refused("model.dtype=float32,bfloat16")
    assert "nothing evaluates rl of 'none' on heldout" in refused("~stages.rl")
    lacking = refused("benchmarks.heldout.levels=[1]")
    assert re.search(r"heldout: it lacks \d+ of the page's 14 problems", lacking)
    assert "cuont" in refused("stages.sft.cuont=3")


def test_arguments_of_a_report_of_outcomes_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "seed=0: path=page" in error_of(tmp_path, capsys, "report", "path=page", "seed=0")
    both = error_of(tmp_path, capsys, "report", "path=page", "outcomes=other")
    assert "outcomes=other: path=page" in both
    assert "page/outcomes.parquet: there is no" in error_of(
        tmp_path, capsys, "report", "path=page", "paths.runs=other"
    )


def test_seeds_are_the_lowest_that_the_page_did_not_use() -> None:
    assert new_seeds("", [0, 1, 2]) == [3, 4]
    assert new_seeds("", [1, 3]) == [0, 2]
    assert new_seeds("12,9", [0]) == [12, 9]


@pytest.mark.parametrize("text", ["a", "1,1", "-1", "1.5", "4,", "range(3)"])
def test_other_words_are_no_seeds(text: str) -> None:
    with pytest.raises(UserError, match="different whole numbers"):
        new_seeds(text, [0])


def test_an_experiment_is_found_by_its_number_name_or_folder(tmp_path: Path) -> None:
    write_expected(tmp_path, ["experiment=toy"])
    assert experiment_folder(str(tmp_path)) == tmp_path
    with pytest.raises(UserError, match=f"reproduce 006: {EXPERIMENTS}/006_scaling has no exp"):
        experiment_folder("006")
    with pytest.raises(UserError, match="any of qwen2_5_0_5b, qwen2_5_1_5b; write more"):
        experiment_folder("qwen2_5")
    with pytest.raises(UserError, match="reproduce 999: there is no such experiment"):
        experiment_folder("999")
    with pytest.raises(UserError, match="name an experiment first"):
        experiment_folder("seeds=3")


# One family, of which sixty steps teach a third.
TOY_DATA = """\
defaults: [{/schema/data@_here_: reasoning_gym}]
test_frac: 0.3
validation_frac: 0.1
families: {leg_counting: {1: {min_animals: 1, max_animals: 1, max_instances: 4}}}
"""
TOY = """\
# @package _global_
defaults:
  - smoke
  - override /data: legs
  - override /optimizer@stages.pretrain.optimization.optimizer: muon
ablate: [distill, midtrain, sft, prefer, dpo, rl]
stages:
  pretrain:
    steps_frac: 0.0
    problems: {levels: [1], count: 90}
    optimization: {learning_rate: 4e-3, batch_size: 20, optimizer: {weight_decay: 0.0}}
protocol: {count: 40, samples: 4, max_new_tokens: 16}
benchmarks: {heldout: {levels: [1]}}
"""
ARMS = "stages.pretrain.optimization.length='1 steps','60 steps'"
PLACE = ["--config-dir", "my_conf", "tracker.mode=disabled", "hardware.threads=1"]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_same_recipe_is_not_different_and_a_crippled_one_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds of two arms are the page, then two new ones twice: as they are, and unable."""
    for path, text in (("data/legs.yaml", TOY_DATA), ("experiment/toy.yaml", TOY)):
        (tmp_path / "my_conf" / path).parent.mkdir(parents=True)
        (tmp_path / "my_conf" / path).write_text(text)
    arms, page = ["experiment=toy", ARMS], tmp_path / "001_toy"
    assert lab_here("-m", *PLACE, *arms, "seed=0,1", cwd=tmp_path) == 0
    report = ("report", *PLACE, *arms, "seed=0,1", f"outcomes={page}")
    assert lab_here(*report, cwd=tmp_path) == 0
    untrained, trained = dict.fromkeys(row.variant for row in read_outcomes(page / OUTCOMES).rows)
    claim = {
        **CLAIM,
        **{"variant": trained, "baseline_variant": untrained},
        **{"stage": "pretrain", "baseline": "pretrain", "margin_points": 20},
    }
    write_expected(page, arms, claim)
    # What is written by hand is completed without the store.
    assert lab_here("report", f"path={page}", f"outcomes={page}", cwd=tmp_path) == 0
    (expected,) = read_expected(page).comparisons
    assert expected.difference is not None
    assert expected.difference > 0.2
    assert lab_here("reproduce", "001_toy", *PLACE, cwd=tmp_path) == 0
    same = result_of(tmp_path)
    assert same["seeds"] == [2, 3]
    assert same["verdict"] != "different"
    shutil.rmtree(tmp_path / "runs" / "reproductions")
    # What is there is not made again.
    capsys.readouterr()
    assert lab_here("reproduce", "001_toy", *PLACE, "seeds=2,3", cwd=tmp_path) == 0
    assert "done in" not in capsys.readouterr().out
    assert result_of(tmp_path) == same
    shutil.rmtree(tmp_path / "runs" / "reproductions")
    unable = "stages.pretrain.optimization.learning_rate=1e-9"
    assert lab_here("reproduce", "001_toy", *PLACE, unable, cwd=tmp_path) == 0
    assert result_of(tmp_path)["verdict"] == "different"
