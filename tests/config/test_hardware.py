"""Every hardware option with every model on every training stage, and the arithmetic of a batch."""

from functools import cache

import pytest
import yaml
from omegaconf import DictConfig, open_dict

from reasoning_lab.commands.compose import compose
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.optimization import AdamWConfig
from reasoning_lab.models.footprint import STRATEGIES
from reasoning_lab.training.loop import micro_batches_per_step
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import UserError
from tests.support.composition import BARE, composed_config, models

HARDWARE = sorted(path.stem for path in (CONF / "hardware").glob("*.yaml"))
STAGES = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))


@cache
def composed_hardware(option: str) -> DictConfig:
    hardware: DictConfig = composed_config(BARE, f"hardware={option}").hardware
    return hardware


@pytest.fixture(scope="module")
def whole() -> DictConfig:
    """Every shipped stage in one recipe; the training ones step AdamW on 32 rows."""
    added = [f"+stage@stages.my_{name}={name}" for name in STAGES]
    config = composed_config("benchmark=[]", *added, "stages.my_opd.teacher.stage=my_midtrain")
    with open_dict(config):
        for stage in config.stages.values():
            if "optimization" in stage:
                stage.optimization.optimizer = AdamWConfig()
                stage.optimization.batch_size = 32
    return config


@pytest.mark.parametrize("option", HARDWARE)
def test_hardware_composes_with_every_model_and_stage(option: str, whole: DictConfig) -> None:
    text = (CONF / "hardware" / f"{option}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# "), "what it assumes"
    says = yaml.safe_load(text)
    hardware = composed_hardware(option)
    world = says.get("devices", 1) * says.get("nodes", 1)
    config = whole.copy()
    config.hardware = hardware
    for model in models().values():
        config.model = model
        root = compose(config).root
        assert root.hardware.world_size == world
        training = [stage for stage in root.stages.values() if isinstance(stage, TrainingStage)]
        assert len(training) >= 10
        for stage in training:
            size = stage.optimization.batch_size
            # Global batch = micro-batch × devices × nodes × accumulation.
            micro = min(says.get("micro_batch_size", size), size // world)
            accumulation = micro_batches_per_step(size, root.hardware) // world
            assert micro * world * accumulation == size
        assert root.hardware.strategy in STRATEGIES


@pytest.mark.parametrize("option", HARDWARE)
def test_batch_that_the_devices_do_not_divide_is_refused(option: str, whole: DictConfig) -> None:
    hardware = composed_hardware(option)
    devices, nodes = hardware.devices, hardware.nodes
    if devices * nodes == 1:
        return
    config = whole.copy()
    config.hardware = hardware
    config.stages.sft.optimization.batch_size = devices * nodes + devices // 2
    among = f"hardware.devices={devices}"
    if nodes > 1:
        among += f" × hardware.nodes={nodes}"
    with pytest.raises(UserError, match=f"^{among} does not divide stages.sft.optimization"):
        compose(config)
