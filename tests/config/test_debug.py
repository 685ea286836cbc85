"""The options of `debug` and `hparams_search`: what they change, and that code reads it."""

from dataclasses import replace
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.optimization import DebugConfig, OptimizationConfig, OptimizerConfig
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.stage import TrainingStage
from tests.support.composition import composed_recipe
from tests.support.stages import STAGES, optimization, trained


def training_stages(*overrides: str) -> dict[str, TrainingStage]:
    stages = composed_recipe(*overrides).root.stages
    return {name: stage for name, stage in stages.items() if isinstance(stage, TrainingStage)}


@pytest.mark.parametrize("recipe", ["tiny", "from_scratch"])
def test_one_step_is_one_step_of_every_training_stage(recipe: str) -> None:
    stages = training_stages(f"recipe={recipe}", "debug=one_step")
    assert list(stages) == ["pretrain", "midtrain", "sft", "dpo", "rl"]
    assert {stage.optimization.steps for stage in stages.values()} == {1}


def test_overfitting_leaves_the_length() -> None:
    plain, overfit = training_stages(), training_stages("debug=overfit")
    for name, stage in overfit.items():
        assert stage.optimization.overfit_batches == 1
        assert stage.optimization.length == plain[name].optimization.length


def test_a_debugged_stage_is_another_artifact() -> None:
    prints = {
        composed_recipe(*overrides).nodes[0].fingerprint
        for overrides in ([], ["debug=one_step"], ["debug=overfit"], ["debug=anomaly"])
    }
    assert len(prints) == 4


def test_overfitting_one_batch_fits_it(context: StageContext, tmp_path: Path) -> None:
    """The coins cannot be known, so that only who reads few of them over and over learns them."""
    debug = DebugConfig(overfit_batches=1)
    steps = optimization(length="40 steps", learning_rate=1e-2)
    for name, changed in (("all", steps), ("one", debug.applied(steps))):
        stage = STAGES["sft"]
        trained("sft", context, tmp_path / name, _with(stage, changed))
    losses = {
        name: list(read_history(tmp_path / name / "out")["train/loss"].values())[-1]
        for name in ("all", "one")
    }
    assert losses["one"] < 0.5 * losses["all"]


def test_anomaly_detection_names_the_operation(context: StageContext, tmp_path: Path) -> None:
    wild = optimization(
        length="4 steps",
        learning_rate=1e38,
        clip_norm=1e38,
        optimizer=OptimizerConfig("torch.optim.SGD"),
    )
    anomaly = DebugConfig(detect_anomaly=True).applied(wild)
    with pytest.raises(RuntimeError, match="returned nan values"):
        trained("sft", context, tmp_path, _with(STAGES["sft"], anomaly))


def _with(stage: TrainingStage, changed: OptimizationConfig) -> TrainingStage:
    return replace(stage, optimization=changed)


def test_the_search_looks_at_validation_problems_alone() -> None:
    register_schemas()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["hparams_search=optuna"]
        config = hydra.compose("config", overrides, return_hydra_config=True)
    assert list(config.benchmarks) == ["validation"]
    assert config.benchmarks.validation.split == "validation"
    sweeper = config.hydra.sweeper
    assert sweeper._target_.endswith("OptunaSweeper")
    assert sweeper.direction == "maximize"
    assert set(sweeper.params) == {
        "stages.sft.optimization.learning_rate",
        "stages.sft.optimization.length",
    }
    # Nothing behind SFT is trained, so its policy is the last one.
    assert composed_recipe("hparams_search=optuna").nodes[-1].name == "sft/validation"
