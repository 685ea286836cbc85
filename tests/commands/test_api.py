"""The functions that notebooks call find what the command makes, and the reverse."""

import re
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from reasoning_lab.commands import api as lab
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.types import UserError
from tests.conftest import SMOKE
from tests.support.composition import composed_recipe


def test_a_composed_recipe_is_the_command_s() -> None:
    """And so is the one of other tests, which share the part that Hydra is slow to compose."""
    words = ["experiment=smoke", "seed=3", "~data.families.gcd", "ablate=[prefer,dpo]"]
    words += ["stages.rl={group_size: 4, filter: {balance: equal}}", "stages.rl.group_size=6"]
    words += ["stages.sft.count=9", "tracker.tags=[a,b]"]
    composed = lab.compose(*words)
    expected = composed_recipe(*words)
    assert composed.root == expected.root
    assert [node.fingerprint for node in composed.nodes] == [
        node.fingerprint for node in expected.nodes
    ]
    assert list(composed.overrides) == words


def test_other_overrides_compose_in_the_same_process() -> None:
    assert [lab.compose(f"seed={seed}").root.seed for seed in (1, 2)] == [1, 2]


def test_a_sweep_composes_every_combination() -> None:
    recipes = lab.sweep("experiment=smoke", "ablate=none,dpo", "seed=4")
    assert [(recipe.variant, recipe.root.seed) for recipe in recipes] == [("none", 4), ("dpo", 4)]
    with pytest.raises(UserError, match="gives 2 recipes"):
        lab.compose("seed=0,1")


def test_an_experiment_s_own_sweep_is_added() -> None:
    recipes = lab.sweep("experiment=009_smaller_models", "model=tiny")
    assert [recipe.root.seed for recipe in recipes] == [0, 1, 2, 3, 4]


def test_recipes_of_a_sweep_are_those_of_their_own_overrides() -> None:
    """Seeds and ablations share a composition; none of them stays in the next recipe."""
    recipes = lab.sweep("experiment=smoke", "ablate=none,[prefer,dpo]", "seed=0,1")
    assert len(recipes) == 4
    for recipe in recipes[1:3]:
        alone = lab.compose(*recipe.overrides)
        assert recipe.root == alone.root
        assert [n.fingerprint for n in recipe.nodes] == [n.fingerprint for n in alone.nodes]


def test_a_mistake_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^stages\.sft\.optimization\.learning_rat"):
        lab.compose("stages.sft.optimization.learning_rat=1")


def test_a_list_or_an_absent_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each is a text of its own"):
        lab.compose(["seed=1"])  # type: ignore[arg-type]  # The mistake that is tested.
    with pytest.raises(UserError, match="there is no folder"):
        lab.compose("seed=1", config_dir=tmp_path / "absent")


def test_a_kernel_s_own_hydra_stays(tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        lab.compose("experiment=smoke")
        assert hydra.compose() is not None


def test_options_of_ones_own_come_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "defaults: [tiny, _self_]\nvalidation_frac: 0.25\n", encoding="utf-8"
    )
    recipe = lab.compose("data=mine", config_dir=tmp_path)
    assert getattr(recipe.root.data, "validation_frac") == 0.25  # noqa: B009 - of a subclass


def test_the_command_s_artifacts_are_loaded_by_type(
    smoke_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(smoke_run)
    recipe = lab.compose(*SMOKE)
    assert {node.state for node in lab.plan(recipe)} == {"cached"}
    artifacts = lab.load(recipe)
    assert isinstance(artifacts["distill"], Corpus)
    assert isinstance(artifacts["sft"], Policy)
    assert isinstance(artifacts["sft/heldout"], Evaluation)
    assert all(rollout.correct for rollout in artifacts["distill"].accepted())
    with pytest.raises(UserError, match=r"load: .* lacks pretrain, .*call run\(recipe\) first"):
        lab.load(lab.compose(*SMOKE, "seed=9"))


def test_run_reuses_what_the_command_made_and_reports(
    smoke_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(smoke_run)
    recipe = lab.compose(*SMOKE)
    finished = lab.run(recipe)
    assert finished.report is not None
    assert finished.report.paths["html"].is_file()
    assert finished.records.keys() == lab.load(recipe).keys()
    again = lab.report(recipe)
    assert [row.pass_at_1 for row in again.rows] == [row.pass_at_1 for row in finished.report.rows]
    with pytest.raises(UserError, match=r"seed=9 lacks pretrain.*run it first"):
        lab.report([recipe, lab.compose(*SMOKE, "seed=9")])


def test_the_readme_s_lines_run(
    smoke_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(smoke_run)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## From Python\n")[2].partition("\n## ")[0]
    (lines,) = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    words = '"experiment=smoke", "seed=1"'
    assert words in lines
    exec(lines.replace(words, "*SMOKE"), {"SMOKE": SMOKE, "__name__": "__main__"})
    assert re.search(r"\d+ accepted rollouts", capsys.readouterr().out)


def test_a_model_from_scratch_has_nothing_to_look_at() -> None:
    with pytest.raises(UserError, match=r"^doctor: this model is trained from scratch"):
        lab.doctor(lab.compose("experiment=smoke"))
