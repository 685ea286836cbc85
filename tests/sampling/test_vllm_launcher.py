"""Real vLLM servers draw the rollouts of trainers in other processes; `make test-vllm`."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import OptimizerConfig, TrapezoidConfig
from reasoning_lab.data.sources.config import FileConfig
from reasoning_lab.launch.job import launched, run_job, write_job
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.vllm_launcher import running_server
from reasoning_lab.tracking.curves import Curves, read_history
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.checkpoints import last_checkpoint
from reasoning_lab.training.job import Job
from reasoning_lab.verify import Verifier
from tests.sampling.test_vllm import COMPLETION_TOKENS, sums, tiny, to_be_brief  # noqa: F401 - a fixture
from tests.support.engine_processes import engines_of, live
from tests.support.launches import (
    after_first_checkpoint,
    assert_processes_end,
    max_weight_difference,
    stage_processes,
)
from tests.support.relay import Relay, relaying

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

STEPS, BATCH, GROUP = 4, 4, 8


HARDWARE = HardwareConfig(
    threads=1, sampling=SamplingHardwareConfig(kv_cache_gb=0.25, requests_in_flight=8)
)


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: F811
    with running_server(
        tiny, "float32", HARDWARE, tmp_path_factory.mktemp("server") / "log"
    ) as url:
        yield url


@pytest.fixture(scope="module")
def job(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:  # noqa: F811
    """Learns to be brief; without folders and hardware."""
    config = to_be_brief(
        # AdamW's first steps would blow rounding up to the learning rate.
        optimizer=OptimizerConfig("torch.optim.SGD", options={"momentum": 0.9}),
        length=f"{STEPS} steps",
        batch_size=BATCH,
        learning_rate=0.3,
        schedule=TrapezoidConfig(decay_frac=0.5),
    )
    return Job(
        name="rl",
        stage=config,
        seed=3,
        out_dir=Path(),
        work_dir=Path(),
        inputs={"policy": Policy(tiny)},
        model=ModelConfig(),
        data=FileConfig(
            path=str(sums(tmp_path_factory.mktemp("data"))), test_frac=0.0, validation_frac=0.0
        ),
        hardware=HARDWARE,
        benchmarks={},
        tracking=None,
    )


def with_servers(job: Job, folder: Path, urls: list[str], **hardware: Any) -> Job:
    """The job in `folder`, with servers."""
    (folder / "out").mkdir(parents=True)
    (folder / "work").mkdir()
    engine = replace(HARDWARE.sampling, rollout_urls=urls)
    return replace(
        job,
        out_dir=folder / "out",
        work_dir=folder / "work",
        hardware=replace(HARDWARE, sampling=engine, **hardware),
    )


def trained_here(job: Job) -> Curves:
    source = job.data.build()
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        run_job(job, source, {}, verifier, Tracker())
    return read_history(job.out_dir)


@pytest.fixture(scope="module")
def alone(job: Job, server: str, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Trained in this process, through the server."""
    single = with_servers(job, tmp_path_factory.mktemp("alone") / "run", [server])
    trained_here(single)
    return single


def same_training(one: Job, other: Job) -> None:
    assert max_weight_difference(one.out_dir, other.out_dir) < 1e-5
    left, right = read_history(one.out_dir), read_history(other.out_dir)
    assert left.keys() == right.keys()
    for key in ("train/loss", "rollout/completion_tokens_mean", "rollout/policy_version"):
        assert left[key] == pytest.approx(right[key], abs=1e-5), key


def test_two_trainers_with_a_server_each_learn_what_one_does(
    job: Job, alone: Job, server: str, tmp_path: Path
) -> None:
    with relaying(Relay(server)) as first, relaying(Relay(server)) as second:
        pair = with_servers(
            job, tmp_path / "run", [first.url, second.url], devices=2, strategy="ddp"
        )
        metrics = launched(pair).metrics
    assert metrics["rollouts"] == STEPS * BATCH * GROUP
    curves = read_history(pair.out_dir)
    # The policy goes far, and the servers with it.
    assert curves["train/kl_to_reference"][STEPS - 1] > 0.05
    assert max(curves["mismatch/logprob_difference_max"].values()) < 1e-4
    same_training(pair, alone)
    # Each rank sent its share of the requests to a separate server, and none twice.
    # The requests of the engine check, before the first step, are shorter.
    shares = [
        [
            body["seed"]
            for body in relay.bodies["/v1/completions"]
            if body["max_tokens"] == COMPLETION_TOKENS
        ]
        for relay in (first, second)
    ]
    assert [len(seeds) for seeds in shares] == [STEPS * BATCH * GROUP / 2] * 2
    assert len({*shares[0], *shares[1]}) == STEPS * BATCH * GROUP
    for relay in (first, second):
        loaded = [body["kwargs"]["weights_path"] for body in relay.bodies["/collective_rpc"]]
        assert [Path(path).name for path in loaded] == [str(version) for version in range(STEPS)]
    assert not list(pair.work_dir.rglob("weights"))
    assert not stage_processes(tmp_path)


def test_a_server_draws_what_vllm_in_this_process_does(
    job: Job, alone: Job, tmp_path: Path
) -> None:
    inside = with_servers(job, tmp_path / "run", [])
    trained_here(inside)
    same_training(inside, alone)


def test_a_vllm_in_this_process_samples_in_the_precision_that_is_said(
    job: Job, tmp_path: Path
) -> None:
    inside = with_servers(job, tmp_path / "run", [])
    stage = replace(job.stage, rollout_dtype="bfloat16")  # type: ignore[call-arg]
    curves = trained_here(replace(inside, stage=stage))
    mismatch = curves["mismatch/logprob_difference_max"].values()
    assert min(mismatch) > 1e-3
    assert max(mismatch) < 1.0


def test_a_push_that_is_lost_shows_in_the_mismatch(job: Job, server: str, tmp_path: Path) -> None:
    pushes = iter(range(STEPS))
    with relaying(Relay(server, lambda path: "rpc" in path and next(pushes) == 2)) as relay:
        curves = trained_here(with_servers(job, tmp_path / "run", [relay.url]))
    mismatch = curves["mismatch/logprob_difference_max"]
    assert mismatch[2] > 1e-2
    assert max(mismatch[step] for step in (0, 1, 3)) < 1e-4


def test_a_server_ends_with_a_program_that_is_killed(tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    code = (
        "import pathlib, sys; from reasoning_lab.sampling.vllm_launcher import running_server; "
        "from tests.sampling.test_vllm_launcher import HARDWARE; model, log = sys.argv[1:]\n"
        "with running_server(pathlib.Path(model), 'float32', HARDWARE, pathlib.Path(log)) as url:\n"
        "    print(url, flush=True); input()"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny), str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.readline().startswith(b"http://")
    (group,) = children_of(program.pid)
    assert live(group) >= 3
    program.kill()
    program.wait()
    assert_ends(group)


def children_of(parent: int) -> list[int]:
    children = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                children.append(int(entry.name))
    return children


def assert_ends(group: int) -> None:
    """Soon no process of the group is left."""
    deadline = time.monotonic() + 120
    while live(group) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not live(group)


def test_engines_of_the_trainers_own_end_with_a_command_that_is_killed(
    job: Job, tmp_path: Path
) -> None:
    stage: Any = job.stage
    stepped = replace(stage.optimization, length="400 steps", checkpoint_every_steps=1)
    longer = replace(job, stage=replace(stage, optimization=stepped))
    pair = with_servers(longer, tmp_path / "job", [], devices=2, strategy="ddp")
    write_job(pair, tmp_path)
    code = (
        "import pathlib, sys; from reasoning_lab.launch.job import launched, read_job; "
        "launched(read_job(pathlib.Path(sys.argv[1])))"
    )
    groups: list[int] = []

    def kill() -> None:
        groups.extend(engines_of(pair.work_dir).values())
        assert all(live(group) for group in groups)
        command.kill()

    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    after_first_checkpoint(pair.work_dir, kill).join()
    assert command.wait() == -signal.SIGKILL
    assert len(groups) == 2
    for group in groups:
        assert_ends(group)
    assert_processes_end(tmp_path)
    (states,) = pair.work_dir.glob("ddp-2x*")
    newest = last_checkpoint(states)
    assert newest is not None
    state = torch.load(newest, weights_only=True)
    (saved,) = [values for values in state["callbacks"].values() if "of_rank" in values]
    history = json.loads(saved["of_rank"][0]["records"]["history"])
    _, mismatch = history["mismatch/logprob_difference_max"]
    assert max(mismatch) < 1e-4
