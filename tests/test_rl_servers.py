"""Reinforcement learning whose rollouts come from a server that stands in for vLLM's."""

from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_lab.schema import EngineHardwareConfig
from reasoning_lab.stages.base import StageContext
from reasoning_lab.tracking.history import read_history

from .test_stages import (
    RL,
    STEPS,
    context,  # noqa: F401
    optimization,
    saved_states,
    source,  # noqa: F401
    trained,
    verifier,  # noqa: F401
    weights,
)
from .vllm_stand_in import StandIn, standing_in


def apart(one: Path, other: Path) -> float:
    left, right = weights(one), weights(other)
    return max(float((left[key] - right[key]).abs().max()) for key in left)


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_server_draws_what_the_policy_would_also_for_a_run_that_goes_on(
    staleness: int,
    context: StageContext,  # noqa: F811
    tmp_path: Path,
) -> None:
    # AdamW's first steps would blow rounding up to the learning rate.
    momentum = {"_target_": "torch.optim.SGD", "momentum": 0.9}
    config = replace(
        RL,
        screen_group_size=2,
        group_size=4,
        staleness=staleness,
        optimization=optimization(optimizer=momentum, learning_rate=0.03, warmup_frac=0.0),
    )
    trained("rl", context, tmp_path / "here", config)
    here, start = tmp_path / "here" / "out", context.inputs["policy"]
    config = replace(config, engine="vllm")
    with standing_in(StandIn(start)) as server:
        engine = EngineHardwareConfig(rollout_urls=[server.url])
        placed = replace(context, hardware=replace(context.hardware, engine=engine))
        _, states = saved_states("rl", placed, tmp_path / "there", config)
        there = tmp_path / "there" / "out"
        assert apart(here, there) < 1e-5 < 1e-3 < apart(start, there)
        pushed = [body["kwargs"]["weights_path"] for body in server.bodies["/collective_rpc"]]
        # Of each policy that draws, once.
        assert [Path(path).name for path in pushed] == [str(n) for n in range(STEPS - staleness)]
        server.restart()
        trained("rl", placed, states[2], config)
    assert apart(there, states[2] / "out") < 1e-6
    mismatch = read_history(there)["train/mismatch_max"]
    assert mismatch[0] < 1e-4
    assert (max(mismatch.values()) < 1e-4) == (staleness == 0)
