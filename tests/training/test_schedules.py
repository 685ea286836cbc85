"""Schedules against those of transformers and by hand; the options that choose them."""

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from reasoning_lab.config.optimization import (
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    OptimizationConfig,
    ScheduleConfig,
    TrapezoidConfig,
)
from reasoning_lab.training.schedules import Schedule, schedule_of, trapezoid
from reasoning_lab.types import UserError
from tests.conftest import Compose

STEPS, WARMUP_STEPS = 20, 5


def schedule(config: ScheduleConfig, steps: int = STEPS) -> Schedule:
    return schedule_of(OptimizationConfig(schedule=config, length=f"{steps} steps"))


def factors(scheduler: LambdaLR, steps: int = STEPS) -> list[float]:
    """What transformers multiplies the rate by, from its step 0 to `steps`."""
    (factor,) = scheduler.lr_lambdas
    return [float(factor(step)) for step in range(steps + 1)]


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def expected(theirs: list[float]) -> list[float]:
    """Theirs begins its warm-up at a rate of 0, ours one step later; after it they are the same."""
    return theirs[1 : WARMUP_STEPS + 1] + theirs[WARMUP_STEPS:STEPS]


def test_constant_is_transformers(optimizer: torch.optim.Optimizer) -> None:
    ours = schedule(ConstantConfig(warmup_frac=WARMUP_STEPS / STEPS))
    theirs = factors(get_constant_schedule_with_warmup(optimizer, WARMUP_STEPS))
    assert [ours(step) for step in range(STEPS)] == pytest.approx(expected(theirs))


def test_linear_is_transformers(optimizer: torch.optim.Optimizer) -> None:
    ours = schedule(LinearConfig(warmup_frac=WARMUP_STEPS / STEPS))
    theirs = factors(get_linear_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS))
    assert [ours(step) for step in range(STEPS)] == pytest.approx(expected(theirs))
    assert ours(STEPS) == 0.0


def test_cosine_is_transformers(optimizer: torch.optim.Optimizer) -> None:
    ours = schedule(CosineConfig(warmup_frac=WARMUP_STEPS / STEPS))
    theirs = factors(get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS))
    assert [ours(step) for step in range(STEPS)] == pytest.approx(expected(theirs))
    assert ours(STEPS) == pytest.approx(0.0)


def test_trapezoid_by_hand() -> None:
    # Ten steps: two up, five down at the end.
    ours = schedule(TrapezoidConfig(warmup_frac=0.2, decay_frac=0.5), 10)
    by_hand = [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0]
    assert [ours(step) for step in range(11)] == pytest.approx(by_hand)
    assert [trapezoid(step, 4, 0.0, 0.0) for step in range(4)] == [1.0] * 4


@pytest.mark.parametrize("config", [ConstantConfig(), LinearConfig(), CosineConfig()])
def test_without_a_warm_up_the_first_step_has_the_peak(config: ScheduleConfig) -> None:
    assert schedule(config)(0) == 1.0


@pytest.mark.parametrize("config", [ConstantConfig, LinearConfig, CosineConfig, TrapezoidConfig])
def test_a_warm_up_may_take_all_steps(config: type[ScheduleConfig]) -> None:
    ours = schedule(config(warmup_frac=1.0), 4)
    assert [ours(step) for step in range(2)] == [0.25, 0.5]


@pytest.mark.parametrize("option", ["constant", "linear", "cosine", "trapezoid"])
def test_schedule_of_a_stage_is_exchanged_by_its_option(option: str, composed: Compose) -> None:
    stages: Any = composed(f"schedule@stages.sft.optimization.schedule={option}").root.stages
    config = stages["sft"].optimization.schedule
    assert config.target == f"reasoning_lab.training.schedules.{option}"
    # The recipe's decay is the trapezoid's alone.
    assert (config.decay_frac is not None) == (option == "trapezoid")
    assert stages["midtrain"].optimization.schedule.target.endswith(".trapezoid")


@pytest.mark.parametrize("option", ["adamw", "muon"])
def test_optimizer_of_a_stage_is_exchanged_by_its_option(option: str, composed: Compose) -> None:
    stages: Any = composed(f"optimizer@stages.dpo.optimization.optimizer={option}").root.stages
    target = stages["dpo"].optimization.optimizer.target
    assert target.rpartition(".")[2] == {"adamw": "AdamW", "muon": "MuonAdamW"}[option]


def test_only_allowed_code_may_step_or_schedule(composed: Compose) -> None:
    for part in ("optimizer", "schedule"):
        key = f"stages.sft.optimization.{part}._target_"
        with pytest.raises(UserError, match=f"^{key}: 'os.system' may not be named"):
            composed(f"{key}=os.system")
