"""A stage's policy may have its best weights instead of its last: which they are, resuming too."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import AdapterConfig
from reasoning_lab.config.optimization import OptimizerConfig
from reasoning_lab.config.validation import OfflineValidationConfig
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.best_weights import BestWeights
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import UserError
from tests.support.stages import STAGES, STEPS, assert_same, saved_states, trained, weights

Best = tuple[str, int, Callable[[Mapping[int, float]], int]]
# The metric that decides, what its label is short of the steps that were trained, and the choice.
BEST: dict[str, Best] = {
    "sft_best": ("val/loss", 1, lambda values: min(values, key=values.__getitem__)),
    "midtrain_best": ("val/loss", 1, lambda values: min(values, key=values.__getitem__)),
    "dpo_best": ("val/pass@1", 0, lambda values: max(values, key=values.__getitem__)),
    "rl_best": ("val/pass@1", 0, lambda values: max(values, key=values.__getitem__)),
}


def state_weights(folder: Path) -> dict[str, Tensor]:
    """The policy's weights of the one training state below `folder`."""
    (file,) = folder.rglob("step-*")
    state = torch.load(file, weights_only=True)["state_dict"]
    return {name.removeprefix("policy."): value for name, value in state.items()}


@pytest.mark.parametrize("name", BEST)
def test_policy_has_the_weights_of_the_step_with_the_best_measure(
    name: str, context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    metrics, states = saved_states(name, context, tmp_path)
    metric, behind, choose = BEST[name]
    values = read_history(tmp_path / "out")[metric]
    assert STEPS - behind in values
    best = choose(values)
    assert "training ends after" not in caplog.text  # As it would say of early stopping.
    assert len(set(values.values())) > 1
    assert (metrics["weights_step"], metrics[metric]) == (best + behind, values[best])
    expected = state_weights(states[best + behind - 1])
    for key, value in weights(tmp_path / "out").items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", ["midtrain_best", "dpo_best", "rl_best"])
def test_last_weights_lie_beside_the_best_where_they_are_kept(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    trained(name, context, tmp_path / "best", replace(STAGES[name], keep_last=True))
    trained(name, context, tmp_path / "last", replace(STAGES[name], weights="last"))
    best, last = tmp_path / "best" / "out", tmp_path / "last" / "out"
    assert (best / "last" / "tokenizer.json").exists()
    content = (best / "last" / "model.safetensors").read_bytes()
    assert content == (last / "model.safetensors").read_bytes()
    assert content != (best / "model.safetensors").read_bytes()
    assert not (last / "last").exists()


def test_adapter_is_merged_with_its_best_weights(context: StageContext, tmp_path: Path) -> None:
    adapted = replace(context, model=replace(context.model, adapter=AdapterConfig(rank=4)))
    config = STAGES["midtrain_best"]
    wild = replace(config.optimization, learning_rate=1.0, length="2 steps")
    config = replace(config, optimization=wild)
    metrics, states = saved_states("midtrain_best", adapted, tmp_path, config)
    step = metrics["weights_step"]
    assert step == 1
    policy, tokenizer = adapted.load_student(Policy(context.inputs["policy"].path))
    learned = state_weights(states[step - 1])
    assert all("lora" in key for key in learned)
    policy.load_state_dict(learned, strict=False)
    save_policy(policy, tokenizer, tmp_path / "expected")
    assert_weights(weights(tmp_path / "out"), weights(tmp_path / "expected"))


def test_only_needed_weights_are_kept(context: StageContext, tmp_path: Path) -> None:
    """Those of the two states that are kept, here of steps 5 and 6, whose best are of step 5."""
    trained("midtrain_best", context, tmp_path)
    files = sorted((tmp_path / "work").rglob("best*"))
    assert [file.name.rpartition("-")[0] for file in files] == ["best-00000005"]
    assert_weights(load_file(files[0]), weights(tmp_path / "out"))


def assert_weights(some: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    """Each of `some` is the same in `whole`; tied weights are there once."""
    assert some
    for key, value in some.items():
        assert torch.equal(value, whole[key]), key


def test_weights_of_a_kept_state_outlive_better_ones(context: StageContext, tmp_path: Path) -> None:
    """Step 4's are the best of its state, until that goes; those of step 2 no state needs."""
    best = BestWeights("best_loss", torch.nn.Linear(2, 2), tmp_path, 9, "s")  # type: ignore[arg-type]

    def kept() -> list[str]:
        return sorted(path.name[5:13].lstrip("0") for path in tmp_path.glob("best-*"))

    best.observe({"val/loss": 3.0}, 2)
    best.observe({"val/loss": 2.0}, 4)
    assert kept() == ["4"]
    best.keep_for(4, [4])
    best.observe({"val/loss": float("nan")}, 5)
    best.observe({"val/loss": 2.0, "val/pass@1": 1.0}, 5)
    assert (best.value, best.step) == (2.0, 4)
    best.observe({"val/loss": 1.0}, 6)
    assert kept() == ["4", "6"]
    # A run that goes on from state 4 has its best weights.
    state = best.state_dict()
    again = BestWeights("best_loss", torch.nn.Linear(2, 2), tmp_path, 9, "s")  # type: ignore[arg-type]
    again.load_state_dict({**state, "value": 2.0, "step": 4})
    again.observe({"val/loss": 1.0}, 6)
    again.keep_for(6, [4, 6])
    assert kept() == ["4", "6"]
    again.observe({"val/loss": 0.5}, 8)
    again.keep_for(8, [6, 8])
    assert kept() == ["6", "8"]


def test_damaged_weights_are_refused(context: StageContext, tmp_path: Path) -> None:
    _, states = saved_states("midtrain_best", context, tmp_path)
    for file in states[3].rglob("best-*"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"stages\.stage: the best weights, of step 4, are damaged"):
        trained("midtrain_best", context, states[3])


def test_measure_that_is_never_a_number_leaves_the_last_weights(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = STAGES["midtrain_best"]
    plain = OptimizerConfig("torch.optim.SGD")
    wild = replace(
        config,
        optimization=replace(config.optimization, optimizer=plain, learning_rate=math.inf),
    )
    metrics = trained("midtrain_best", context, tmp_path / "best", wild)
    trained("midtrain_best", context, tmp_path / "last", replace(wild, weights="last"))
    assert "weights_step" not in metrics
    assert "stages.stage.weights=best_loss: no validation gave a number" in caplog.text
    one, other = (weights(tmp_path / which / "out") for which in ("best", "last"))
    for key, value in one.items():
        assert torch.equal(value.nan_to_num(), other[key].nan_to_num()), key


def test_early_stopping_ends_with_the_best_weights(context: StageContext, tmp_path: Path) -> None:
    """Whose step is `patience` validations and the decay before the end."""
    config: Any = STAGES["midtrain_best"]
    config = replace(config, patience=2, decay_on_stop=1)
    longer = replace(config.optimization, length="40 steps", learning_rate=1.0)
    metrics, states = saved_states(
        "midtrain", context, tmp_path, replace(config, optimization=longer)
    )
    losses = read_history(tmp_path / "out")["val/loss"]
    best = min(losses, key=losses.__getitem__)
    assert metrics["weights_step"] == best + 1 < metrics["steps"] < 40
    assert_weights(weights(tmp_path / "out"), state_weights(states[best]))


HARDWARE = HardwareConfig()
COUNTED = OfflineValidationConfig(count=5)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (
            SFTStage(levels=[2], count=3, validation=COUNTED),
            r"k\.validation\.max_new_tokens: .*=512",
        ),
        (SFTStage(levels=[2], count=3, weights="best_loss"), r"set k\.validate_every_steps"),
        (
            SFTStage(levels=[2], count=3, weights="best_pass@1", validate_every_steps=3),
            r"k\.weights=best_pass@1: no problem is validated; set k\.validation\.count",
        ),
        (
            MidtrainStage(row_tokens=8, patience=1, validate_every_steps=1, keep_last=True),
            r"k\.keep_last: the last weights are the policy itself",
        ),
        (
            RLStage(
                group_size=2,
                max_new_tokens=3,
                staleness=1,
                weights="best_pass@1",
                validation=replace(COUNTED, levels=[1]),
            ),
            r"with staleness=1 a copy is validated",
        ),
    ],
)
def test_measures_that_are_not_taken_are_refused(stage: Any, sentence: str) -> None:
    sized = replace(stage.optimization, length="2 steps", batch_size=4, learning_rate=0.1)
    with pytest.raises(UserError, match=sentence):
        replace(stage, optimization=sized).check("k", HARDWARE)


def test_options_that_are_not_used_are_no_identity() -> None:
    """So what was trained before they existed is reused."""
    for name in ("sft", "midtrain", "dpo"):
        plain, config = STAGES[name].identity(), STAGES[f"{name}_best"]
        new = {"weights", "keep_last", "validation", "validate_every_steps"} - plain.keys()
        assert new >= {"weights", "keep_last", "validation"}
        assert {"weights"} <= config.identity().keys()
        assert replace(config, weights="last").identity() != config.identity()


def test_resumed_best_weights_are_those_of_the_whole_run(
    context: StageContext, tmp_path: Path
) -> None:
    """Also with states that are saved between two validations."""
    config = STAGES["dpo_best"]
    sparse = replace(config, optimization=replace(config.optimization, checkpoint_every_steps=3))
    _, states = saved_states("dpo_best", context, tmp_path, sparse)
    trained("dpo_best", context, states[0], sparse)
    assert_same(tmp_path, states[0])
