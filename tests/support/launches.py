"""Stages as jobs: on one device, in two processes, killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.commands.compose import CONF
from reasoning_lab.config.hardware import SHARDED, HardwareConfig
from reasoning_lab.config.schema import AdapterConfig, ModelConfig, ProblemsConfig
from reasoning_lab.config.targets import factory
from reasoning_lab.data.sources.files import FileSource
from reasoning_lab.launch.job import Job, launched, write_job
from reasoning_lab.stages.pretrain.config import PretrainConfig
from reasoning_lab.tracking.tracker import NullTracker
from reasoning_lab.training.checkpoints import last_checkpoint
from reasoning_lab.training.loop import StageContext
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier
from tests.support.stages import STAGES, optimization, weights

NAMES = ["pretrain", "midtrain", "sft", "dpo", "rl"]
# DeepSpeed leaves matrices of fewer than 100,000 values whole; these have more.
WIDE = ModelConfig(
    vocab_size=300,
    architecture={
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 2048,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
)


def config_of(name: str) -> Any:
    """Steps of plain momentum: AdamW's first ones blow rounding up to the learning rate."""
    config: Any = (
        STAGES[name][1]
        if name in STAGES
        else PretrainConfig(steps_frac=0.5, steps_per_row=2, problems=ProblemsConfig([1], 60))
    )
    steps = 4 if name == "rl" else 10
    stepped = optimization(
        optimizer={"_target_": "torch.optim.SGD", "momentum": 0.9},
        learning_rate=3e-3,
        # Some of the steps are clipped.
        clip_norm=0.3 if name == "rl" else 4.0,
        steps=steps,
        checkpoint_every_steps=steps // 2,
    )
    run = f"reasoning_lab.stages.{name}.module.run"
    return replace(config, run=run, produces="policy", optimization=stepped)


@pytest.fixture(scope="session")
def jobs(context: StageContext, source: FileSource) -> dict[str, Job]:
    """Every stage on one device, without folders."""
    coins = {
        "_target_": "reasoning_lab.data.sources.files.FileSource",
        "path": str(source._path),
        "test_frac": 0.1,
        "validation_frac": 0.1,
        "rows": {"family": "coins"},
    }
    tiny: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "tiny.yaml"))
    made = {
        name: Job(
            name=name,
            config=config_of(name),
            seed=3,
            out_dir=Path(),
            work_dir=Path(),
            inputs={} if name == "pretrain" else context.inputs,
            authors={},
            lineage=[],
            model=WIDE if name == "pretrain" else context.model,
            data=tiny if name == "pretrain" else coins,
            hardware=HardwareConfig(micro_batch_size=1, threads=1),
            benchmarks={},
            tracking=None,
        )
        for name in NAMES
    }
    sft = made["sft"]
    made["lora"] = replace(sft, model=replace(context.model, adapter=AdapterConfig(rank=4)))
    # FSDP sums the norm of a clipped gradient in another order. Of larger steps the last bits grow,
    # as they decide how weights round to bfloat16: one process would end far from itself.
    config: Any = sft.config
    gentle = replace(config, optimization=replace(config.optimization, learning_rate=1e-3))
    reference = replace(sft.hardware, kernels="reference")
    made["reference"] = replace(sft, hardware=reference)
    made["padded"] = replace(made["midtrain"], hardware=reference)
    made["mixed"] = replace(sft, config=gentle, model=replace(context.model, dtype="mixed"))
    return made


def slowed(job: Job) -> Job:
    """So many steps that it does not end by itself."""
    config: Any = job.config
    longer = replace(config.optimization, steps=4000, checkpoint_every_steps=2)
    return replace(job, config=replace(config, optimization=longer))


def processes_of(folder: Path) -> dict[int, str]:
    """Pid and rank ("" = torchrun) of each live process of a stage that has to do with `folder`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes().decode()
            place = os.readlink(entry / "cwd")
            environ = (entry / "environ").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if "reasoning_lab.launch.job" in told and str(folder) in told + place:
            ranks = [word[5:] for word in environ if word.startswith("RANK=")]
            found[int(entry.name)] = ranks[0] if ranks else ""
    return found


def once_saved(work: Path, act: Callable[[], None]) -> threading.Thread:
    """Do `act` beside the caller as soon as a state was saved below `work`."""

    def wait() -> None:
        while not any(work.rglob("step-*")):
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def placed(job: Job, folder: Path, strategy: str, devices: int = 2) -> Job:
    """The job in `folder`, on so many devices, with fresh folders."""
    (folder / "out").mkdir(parents=True)
    (folder / "work").mkdir()
    hardware = replace(
        job.hardware,
        devices=devices,
        strategy=strategy,
        # Neither changes a result.
        offload="cpu" if strategy == "deepspeed2" else "none",
        activation_checkpointing=strategy in SHARDED,
    )
    return replace(job, out_dir=folder / "out", work_dir=folder / "work", hardware=hardware)


@pytest.fixture(scope="session")
def single(
    jobs: dict[str, Job],
    verifier: Verifier,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, Any]]:
    """Folder and outcome of every stage, made in this process."""
    return {
        name: made_here(job, verifier, tmp_path_factory.mktemp(name) / "run")
        for name, job in jobs.items()
    }


def made_here(job: Job, verifier: Verifier, folder: Path) -> tuple[Path, Any]:
    """Folder and outcome of the job, made in this process on one device."""
    here = placed(job, folder, "single", devices=1)
    source = factory(job.data, "data")()
    return here.out_dir, here.run(source, {}, verifier, NullTracker())


def train_together(jobs: Mapping[str, Job], root: Path, processes: int = 2) -> None:
    """All in the same processes, see `distributed_worker`; a job's name is its folder's."""
    for name, job in jobs.items():
        folder, work = root / name, root / f"work-{name}"
        folder.mkdir()
        job.work_dir.rename(work)
        write_job(replace(job, work_dir=work), folder)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    held, holder = os.pipe()
    with (root / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, *torchrun, "-m", "tests.support.distributed_worker", str(root)],
            stdin=held,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
        )
    os.close(held)
    os.close(holder)
    assert done.returncode == 0, (root / "log").read_text()[-6000:]


def apart(one: Path, other: Path) -> float:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return max(float((left[key] - right[key]).abs().max()) for key in left)


def told_of_lost_rank(job: Job, root: Path) -> str:
    """What is said when rank 1 is killed; all processes under `root` end, and a state is there."""

    def kill() -> None:
        (pid,) = [pid for pid, rank in processes_of(root).items() if rank == "1"]
        os.kill(pid, signal.SIGKILL)

    once_saved(job.work_dir, kill)
    with pytest.raises(UserError) as told:
        launched(job)
    assert "\n" not in str(told.value)
    assert not processes_of(root)
    # It can be gone on from.
    (states,) = job.work_dir.glob(f"{job.hardware.strategy}-2x*")
    assert last_checkpoint(states) is not None
    return str(told.value)


def end_with_command(job: Job, root: Path) -> None:
    """A command that makes `job` is killed; soon no process under `root` is left."""
    folder = root / "told"
    folder.mkdir()
    write_job(job, folder)
    code = (
        "import pathlib, sys; from reasoning_lab.launch.job import launched, read_job; "
        "launched(read_job(pathlib.Path(sys.argv[1])))"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    once_saved(job.work_dir, command.kill).join()
    command.wait()
    deadline = time.monotonic() + 120
    while processes_of(root) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes_of(root)


def equals_one_process(job: Job, single: tuple[Path, Any]) -> None:
    """Launched, it leaves the weights, the tokens and the ledger that one process left."""
    alone, expected = single
    outcome = launched(job)
    assert apart(alone, job.out_dir) < 1e-5
    assert outcome.metrics["train_tokens"] == expected.metrics["train_tokens"]
    assert outcome.ledger == expected.ledger != {}
