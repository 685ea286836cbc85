"""The rungs from the toy to the paper: each plans by itself, and none has another's numbers."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.config.components import missing_packages_noted
from reasoning_lab.training.stage import TrainingStage
from tests.support.composition import composed_config, composed_recipe, models

ON_GPUS = ("qwen2_5_0_5b", "qwen2_5_1_5b", "qwen2_5_1_5b_lora", "phi4_mini_reasoning")
CHECKPOINTS = [name for name, model in models().items() if model.path is not None]


def rung(name: str) -> Recipe:
    with missing_packages_noted():
        return composed_recipe(f"experiment={name}")


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_the_papers_recipe_lacks_nothing_and_has_no_number_of_the_toy(model: str) -> None:
    """Problems are published ones, rates suit all weights, and budgets are the paper's."""
    path = ["model.path=some/model"] if model == "checkpoint" else []
    config: Any = composed_config("recipe=paper", f"model={model}", *path)
    assert not OmegaConf.missing_keys(config)
    text = OmegaConf.to_yaml(config)
    assert "muon" not in text
    assert "procedural" not in text
    assert "reasoning_gym" not in text
    assert set(config.benchmarks) == {"aime24", "math500", "gpqa_diamond"}
    for benchmark in config.benchmarks.values():
        assert benchmark.sampling.max_new_tokens >= 32768
    assert "curate" in config.stages
    assert config.stages.distill.level_pass_rates == [0.75, 0.25]
    assert list(config.stages.sft.levels) == [2, 3]
    for stage in config.stages.values():
        if "optimization" in stage:
            assert stage.optimization.learning_rate <= 1e-5
            assert stage.optimization.batch_size >= 64
        for key in ("row_tokens", "max_tokens", "max_new_tokens"):
            assert stage.get(key, 16384) >= 16384


@pytest.mark.parametrize("name", ON_GPUS)
def test_a_rung_is_planned_in_hours_money_and_memory(name: str) -> None:
    """Each training has bounds, fits its GPU, and costs what its devices' hours cost."""
    recipe = rung(name)
    recipe.root.hardware.price_per_hour = 2.0
    for node in planned([recipe]):
        if isinstance(recipe.root.stages.get(node.stage), TrainingStage):
            _check_bounds(node)


def _check_bounds(node: PlannedNode) -> None:
    price, needs = node.price, node.needs
    assert price.train_tokens.most
    assert price.wall_s.most
    assert price.money is not None
    assert price.money.most == pytest.approx(price.wall_s.most * price.devices / 3600 * 2.0)
    assert needs.device is not None
    assert needs.machine is not None
    assert needs.device.most is not None
    assert needs.device.most < 80e9, node.stage
    assert needs.machine.most is not None
    assert needs.artifact.most is not None


def test_each_rung_on_a_gpu_samples_with_vllm_and_curates() -> None:
    for name in ON_GPUS:
        root: Any = rung(name).root
        assert root.engine.runtime == "vllm", name
        assert root.stages["rl"].rollout_engine == "vllm", name
        assert "curate" in root.stages, name


def test_what_vllm_lacks_is_noted_and_not_refused_where_nothing_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reasoning_lab.config.components.find_spec", lambda name: None)
    with missing_packages_noted() as missing:
        composed_recipe("experiment=qwen2_5_0_5b", "seed=17")
    assert [sentence.partition(":")[0] for sentence in missing] == [
        "engine",
        "stages.rl.rollout_engine",
    ]
