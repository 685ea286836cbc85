"""Reinforcement learning whose rollouts come from a server that stands in for vLLM's."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.hardware import SamplingHardwareConfig
from reasoning_lab.config.optimization import OptimizerConfig, TrapezoidConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.launch.job import launched
from reasoning_lab.stages.rl.options import ImportanceConfig
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.job import Job
from reasoning_lab.training.rollout_sampler import exclusive_server
from reasoning_lab.types import UserError
from tests.support.launches import max_weight_difference, with_placement
from tests.support.stages import RL, optimization, saved_states, trained
from tests.support.vllm_stand_in import StandIn, running_stand_in


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_server_draws_what_the_policy_would_also_for_a_run_that_goes_on(
    staleness: int,
    context: StageContext,
    tmp_path: Path,
) -> None:
    # AdamW's first steps would blow rounding up to the learning rate.
    momentum = OptimizerConfig("torch.optim.SGD", options={"momentum": 0.9})
    config = replace(
        RL,
        problems=ProblemsConfig([1], 12),
        screen_group_size=2,
        group_size=4,
        staleness=staleness,
        # By default the server's completions would be weighted, and the policy's own not.
        importance=ImportanceConfig("none"),
        optimization=optimization(
            optimizer=momentum,
            learning_rate=0.03,
            schedule=TrapezoidConfig(decay_frac=0.5),
            length="4 steps",
        ),
    )
    trained("rl", context, tmp_path / "here", config)
    here, start = tmp_path / "here" / "out", context.inputs["policy"].path
    config = replace(config, rollout_engine="vllm")
    with running_stand_in(StandIn(start)) as server:
        engine = SamplingHardwareConfig(rollout_urls=[server.url])
        served = replace(context, hardware=replace(context.hardware, sampling=engine))
        _, states = saved_states("rl", served, tmp_path / "there", config)
        there = tmp_path / "there" / "out"
        assert (
            max_weight_difference(here, there) < 1e-5 < 1e-3 < max_weight_difference(start, there)
        )
        pushed = [body["kwargs"]["weights_path"] for body in server.bodies["/collective_rpc"]]
        # Of each policy that draws, once.
        assert [Path(path).name for path in pushed] == [str(n) for n in range(4 - staleness)]
        server.restart()
        trained("rl", served, states[2], config)
    assert max_weight_difference(there, states[2] / "out") < 1e-6
    mismatch = read_history(there)["mismatch/logprob_difference_max"]
    assert mismatch[0] < 1e-4
    assert (max(mismatch.values()) < 1e-4) == (staleness == 0)


def test_a_server_has_the_precision_that_samples(context: StageContext, tmp_path: Path) -> None:
    config = replace(RL, screen_group_size=0, rollout_engine="vllm", rollout_dtype="bfloat16")
    with running_stand_in(StandIn(context.inputs["policy"].path)) as server:
        engine = SamplingHardwareConfig(rollout_urls=[server.url])
        served = replace(context, hardware=replace(context.hardware, sampling=engine))
        with pytest.raises(UserError, match=r"has dtype=torch.float32; .* --dtype bfloat16 "):
            trained("rl", served, tmp_path, config)


def test_trainings_take_turns_at_a_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = []

    def second() -> None:
        with exclusive_server("http://one:1", tmp_path):
            order.append("second")

    caplog.set_level(logging.INFO)
    waiting = threading.Thread(target=second, daemon=True)
    with exclusive_server("http://one:1", tmp_path):
        waiting.start()
        with exclusive_server("http://other:1", tmp_path):
            order.append("other")
        while "Waiting for 'http://one:1'" not in caplog.text:
            time.sleep(0.01)
        order.append("first")
    waiting.join(20)
    assert order == ["other", "first", "second"]


@pytest.mark.distributed
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed3"])
def test_servers_get_the_whole_weights_of_trainers_that_share_them(
    strategy: str,
    jobs: dict[str, Job],
    tmp_path: Path,
) -> None:
    job = with_placement(jobs["rl"], tmp_path / "run", strategy)
    with running_stand_in(StandIn(job.inputs["policy"].path)) as server:
        engine = SamplingHardwareConfig(rollout_urls=[server.url])
        hardware = replace(job.hardware, sampling=engine)
        stage: Any = job.stage
        launched(replace(job, stage=replace(stage, rollout_engine="vllm"), hardware=hardware))
        pushed = [Path(body["kwargs"]["weights_path"]) for body in server.bodies["/collective_rpc"]]
    curves = read_history(job.out_dir)
    assert [int(path.name) for path in pushed] == sorted(curves["rollout/policy_version"].values())
    assert max(curves["mismatch/logprob_difference_max"].values()) < 1e-4
