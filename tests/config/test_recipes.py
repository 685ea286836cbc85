"""What recipes and stage options hold: the paper's numbers, the toy's in one place, any model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reasoning_lab.commands.compose import compose
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.optimization import LinearConfig
from tests.support.composition import composed_config, composed_recipe, models

# What an option cannot know by itself.
MISSING = {
    "recipe=evaluate": ["model.path=some/model"],
    "recipe=own": ["model.path=some/model", "data=gsm8k"],
    "recipe=paper": ["model.path=some/model"],
    "experiment=004_smollm2_gsm8k": ["stages.distill.teacher.engine.model=some/model"],
}


def options() -> list[str]:
    names = []
    for group in ("recipe", "experiment", "debug", "hparams_search"):
        folder = CONF / group
        paths = folder.rglob("*.yaml") if group == "experiment" else folder.glob("*.yaml")
        names += [f"{group}={path.relative_to(folder).with_suffix('')}" for path in sorted(paths)]
    stage = "stages.sft.optimization"
    for group in ("optimizer", "schedule"):
        for path in sorted((CONF / group).glob("*.yaml")):
            names.append(f"{group}@{stage}.{group}={path.stem}")
    return names


@pytest.mark.parametrize("option", options())
def test_option_composes_with_every_model(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasoning_lab.config.components.find_spec", lambda name: name)
    config = composed_config(option, *MISSING.get(option, []))
    for model in models().values():
        if model.path is None and option in ("recipe=evaluate", "recipe=own", "recipe=paper"):
            continue
        config.model = model
        if model.path is None and "pretrain" not in config.stages:
            continue  # A recipe that starts from a checkpoint.
        # Other tests hold what a precision or an adapter refuses.
        assert compose(config).nodes


def test_the_papers_rates_and_lengths_need_no_other_word() -> None:
    """Figures of the paper, by step: rates, warm-up, batch, epochs and tokens of a row."""
    stages: Any = composed_recipe(
        "recipe=paper", "model=qwen2_5_0_5b", "data=openr1_math", "hardware=gpu"
    ).root.stages
    midtrain, sft, dpo, rl = (stages[name] for name in ("midtrain", "sft", "dpo", "rl"))
    assert midtrain.row_tokens == 16 * 1024
    assert midtrain.trained == "sequence"
    for stage in (midtrain, sft):
        assert stage.optimization.learning_rate == 1e-5
        assert isinstance(stage.optimization.schedule, LinearConfig)
        assert stage.optimization.schedule.warmup_frac == 0.1
        assert stage.optimization.batch_size == 128
    assert midtrain.optimization.length == "5 epochs"
    assert sft.max_tokens == 20 * 1024
    assert (dpo.optimization.learning_rate, dpo.optimization.length) == (5e-7, "1 epoch")
    assert dpo.max_tokens == 16 * 1024
    assert dpo.sft_weight == 0.0
    assert rl.optimization.learning_rate == 5e-7
    assert rl.max_new_tokens == 25 * 1024
    assert (rl.temperature.start, rl.temperature.end, rl.temperature.anneal_frac) == (1.0, 0.6, 0.5)
    assert (rl.filter.balance, rl.filter.max_pass_rate) == ("equal", 0.5)
    assert rl.filter.max_length_variation is not None
    assert rl.filter.hard_rollouts > 0
    optimizers = {stage.optimization.optimizer.target for stage in (midtrain, sft, dpo, rl)}
    assert optimizers == {"torch.optim.AdamW"}


@pytest.mark.parametrize("path", sorted((CONF / "stage").glob("*.yaml")), ids=lambda p: p.stem)
def test_stage_options_suit_a_pretrained_checkpoint(path: Path) -> None:
    """A rate of the toy would destroy one, and its levels are those of its own problems."""
    text = path.read_text()
    assert "muon" not in text
    option = yaml.safe_load(text)
    if "optimization" in option:
        assert float(option["optimization"]["learning_rate"]) <= 3e-4
        assert option["optimization"]["batch_size"] >= 64
    problems = option.get("problems", option)
    assert problems.get("levels", [1]) == [1]


def test_pairs_of_another_kind_come_with_their_own_numbers() -> None:
    """The tiny recipe's numbers of `prefer` are no keys of `prefer_teacher`."""
    options: list[Any] = [
        composed_recipe(f"stage@stages.prefer={name}").root.stages["prefer"]
        for name in ("prefer", "prefer_mixed", "prefer_teacher")
    ]
    prefer, mixed, teacher = options
    assert (prefer.group_size, prefer.pairs_per_problem) == (6, 4)
    assert prefer.sampling.max_new_tokens == 200
    assert (mixed.group_size, mixed.pairs_per_problem, mixed.problems.count) == (6, 1, 1200)
    assert teacher.pairs_per_problem == 1
