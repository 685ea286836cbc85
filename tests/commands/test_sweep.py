"""Multiruns: what is shared is made once, by whatever launches them; what cannot be, not at all."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import FAST_PRETRAINING, SMOKE, lab, lab_here
from tests.support.composition import composed_recipe

# `ablate=dpo` leaves `prefer` without a reader, so these two are one recipe.
TWINS = "ablate=dpo,[prefer,dpo]"
DONE = re.compile(r"^\[step \d+ of \d+\] (\S+): done", re.MULTILINE)


@pytest.fixture
def finished_run(smoke_run: Path, tmp_path: Path) -> Path:
    """A folder of its own in which the smoke recipe has run."""
    shutil.copytree(smoke_run / "runs" / "store", tmp_path / "runs" / "store")
    return tmp_path


Nodes = list[dict[str, Any]]


def planned(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> Nodes:
    capsys.readouterr()
    assert lab_here("plan", "format=json", *SMOKE, *overrides, cwd=folder) == 0
    nodes: Nodes = json.loads(capsys.readouterr().out)["nodes"]
    return nodes


@pytest.mark.long
def test_ablation_makes_what_its_plan_counts_and_the_second_call_nothing(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = "ablate=none,sft,dpo,rl"
    nodes = planned(finished_run, capsys, sweep)
    to_run = [node["fingerprint"] for node in nodes if node["state"] == "run"]
    # Without sft the pairs are the teacher's all the same: dpo and rl with their evaluations.
    # Without dpo: rl and its evaluation. Without rl nothing is new.
    expected = {"sft": ["dpo", "dpo/heldout", "rl", "rl/heldout"], "dpo": ["rl", "rl/heldout"]}
    assert [(n["variant"], n["stage"]) for n in nodes if n["state"] == "run"] == [
        (variant, stage) for variant, stages in expected.items() for stage in stages
    ]
    assert len(set(to_run)) == len(to_run) == 6
    assert {n["variant"] for n in nodes} == {"none", "sft", "dpo", "rl"}
    assert lab_here("-m", *SMOKE, sweep, cwd=finished_run) == 0
    assert DONE.findall(capsys.readouterr().out) == [*expected["sft"], *expected["dpo"]]
    assert all(node["state"] == "cached" for node in planned(finished_run, capsys, sweep))
    assert lab_here("-m", *SMOKE, "ablate=sft,dpo", cwd=finished_run) == 0
    assert DONE.findall(capsys.readouterr().out) == []


def test_plan_tells_what_is_shared_and_how_long_it_takes(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = planned(finished_run, capsys, TWINS, "seed=0,7")
    assert len(nodes) == 4 * 9
    of_seed = [node for node in nodes if node["seed"] == 7 and not node["repeated"]]
    assert len(of_seed) == 9
    rl = next(node for node in of_seed if node["stage"] == "rl")
    assert (rl["steps"], rl["rows"], rl["state"]) == (2, 2 * 4 * 8, "run")
    done = next(node for node in nodes if node["stage"] == "sft" and node["seed"] == 0)
    again = next(node for node in of_seed if node["stage"] == "sft")
    # The same work as the artifact of seed 0, so the same time and tokens.
    assert again["price"]["measured"]
    for amount in ("wall_s", "train_tokens"):
        of_one_run = done["price"][amount]["least"]
        assert again["price"][amount] == {
            "least": pytest.approx(of_one_run, abs=0.001),
            "most": pytest.approx(of_one_run, abs=0.001),
            "extrapolated": True,
        }
    double = planned(finished_run, capsys, "stages.sft.optimization.length=8 steps")
    longer = next(node for node in double if node["stage"] == "sft")
    tokens = longer["price"]["train_tokens"]["most"]
    assert tokens > 0
    assert tokens == pytest.approx(2 * done["price"]["train_tokens"]["most"])
    assert lab_here("plan", *SMOKE, TWINS, "seed=7", cwd=finished_run) == 0
    assert "9 to make, 0 to reuse, 9 shared between runs; ~" in capsys.readouterr().out


def test_an_experiment_may_bring_its_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def variants(*words: str) -> list[tuple[str, int]]:
        capsys.readouterr()
        assert lab_here("plan", "format=json", *words, cwd=tmp_path) == 0
        nodes: Nodes = json.loads(capsys.readouterr().out)["nodes"]
        return list(dict.fromkeys((node["variant"], node["seed"]) for node in nodes))

    name = "experiment=009_smaller_models"
    everything = ["model=tiny_0_2m", "model=tiny", "model=tiny_3m"]
    assert variants("-m", name) == [(variant, s) for variant in everything for s in range(5)]
    assert variants("-m", name, "seed=7") == [(variant, 7) for variant in everything]
    assert variants(name) == [("none", 0)]


def test_sweep_that_searches_cannot_be_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        lab_here("plan", "-m", "stages.rl.policy_loss.clip_low=interval(0.1,0.3)", cwd=tmp_path)
        == 2
    )
    assert "hydra/sweeper: this one searches" in capsys.readouterr().err


def test_impossible_combination_ends_a_sweep_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("-m", *SMOKE, "ablate=none,distill", cwd=tmp_path) == 2
    err = capsys.readouterr().err.strip()
    assert re.search(r"ablate=distill.*: stages\.midtrain: it needs a corpus.*'distill'", err)
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs" / "store").exists()


def test_flag_that_means_nothing_to_a_plan_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("plan", "--cfg", "job", cwd=tmp_path) == 2
    assert "--cfg: only overrides" in capsys.readouterr().err


def test_plan_reads_a_config_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    path = tmp_path / "mine" / "experiment" / "own.yaml"
    path.write_text("# @package _global_\nablate: rl\n")
    words = ["plan", "format=json", "--config-dir", "mine", "experiment=own"]
    assert lab_here(*words, cwd=tmp_path) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert {node["variant"] for node in nodes} == {"rl"}


def test_recipe_without_a_benchmark_ends_well(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here(*SMOKE, "~benchmarks.heldout", cwd=finished_run) == 0
    assert "nothing to report" in capsys.readouterr().out


def twin_stages(folder: Path) -> list[str]:
    """Stages that were made newly, as the artifacts of the twins tell."""
    recipe = composed_recipe(*SMOKE, "ablate=dpo")
    return [
        node.name
        for node in recipe.nodes
        if (folder / "runs" / "store" / node.stage.name / node.fingerprint).is_dir()
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
            id="joblib",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
            id="submitit",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_two_processes_that_need_the_same_stage_make_it_once(
    launcher: list[str], finished_run: Path
) -> None:
    before = {path.name for path in (finished_run / "runs" / "store").glob("*/*") if path.is_dir()}
    code, out, err = lab("-m", *SMOKE, TWINS, *launcher, cwd=finished_run)
    assert code == 0, out + err
    logs = out + "".join(
        path.read_text() for path in (finished_run / "runs" / "sweeps").rglob("*_log.out")
    )
    assert sorted(DONE.findall(logs)) == ["rl", "rl/heldout"]
    after = {path.name for path in (finished_run / "runs" / "store").glob("*/*") if path.is_dir()}
    assert len(after - before) == 2
    assert "rl/heldout" in twin_stages(finished_run)
    assert len(list((finished_run / "runs" / "sweeps").rglob("report.json"))) == 2


@pytest.mark.long
@pytest.mark.timeout(600)
def test_optuna_searches_for_the_best_pass_at_1(tmp_path: Path) -> None:
    """Over a base policy that gets some direct answers right, so that the objective is not 0."""
    code, out, err = lab(
        *("-m", *SMOKE, "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize"),
        *(override for override in FAST_PRETRAINING if "learning_rate" not in override),
        *("hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"),
        *("ablate=[distill,midtrain,sft,prefer,dpo,rl]", "stages.pretrain.problems.count=2000"),
        *("stages.pretrain.optimization.batch_size=20", "benchmarks.heldout.count=70"),
        "stages.pretrain.optimization.length=90 steps",
        "stages.pretrain.optimization.learning_rate=interval(3e-3,5e-3)",
        cwd=tmp_path,
    )
    assert code == 0, out + err
    (path,) = (tmp_path / "runs" / "sweeps").glob("*/optimization_results.yaml")
    results = OmegaConf.load(path)
    reports = list((tmp_path / "runs" / "sweeps").rglob("report.json"))
    assert len(reports) == 2
    (reached, other) = (json.loads(r.read_text())["rows"][-1]["pass@1"] for r in reports)
    assert results.best_value == max(reached, other) > 0
    assert 3e-3 <= results.best_params["stages.pretrain.optimization.learning_rate"] <= 5e-3
