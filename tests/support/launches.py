"""Stages as jobs: in this process, in several processes, and killed."""

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

from reasoning_lab.config.folder import CONF
from reasoning_lab.config.hardware import SHARDED, HardwareConfig
from reasoning_lab.config.model import AdapterConfig, ModelConfig
from reasoning_lab.config.optimization import OptimizerConfig
from reasoning_lab.config.policy_loss import GSPOConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.sources.config import FileConfig, ReasoningGymConfig
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.launch.job import launched, run_job, write_job
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.pretrain.stage import PretrainStage
from reasoning_lab.stages.rl.options import EntropyConfig, ImportanceConfig
from reasoning_lab.system.files import sha256
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.checkpoints import last_checkpoint
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.job import Job
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier
from tests.support.stages import COINS, STAGES, optimization, weights

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
    """The stage's config with momentum SGD: AdamW's first steps amplify rounding errors."""
    config: Any = (
        STAGES[name]
        if name in STAGES
        else PretrainStage(steps_frac=0.5, steps_per_row=2, problems=ProblemsConfig([1], 60))
    )
    is_rl = config.samples_rollouts
    steps = 4 if is_rl else 10
    sgd = optimization(
        optimizer=OptimizerConfig("torch.optim.SGD", options={"momentum": 0.9}),
        learning_rate=3e-3,
        # Some of the steps are clipped.
        clip_norm=0.3 if is_rl else 4.0,
        length=f"{steps} steps",
        checkpoint_every_steps=steps // 2,
    )
    return replace(config, optimization=sgd)


def inputs_of(name: str, context: StageContext) -> dict[str, Artifact]:
    """Those of the context's artifacts that the stage consumes."""
    config = config_of(name)
    inputs = {artifact.kind: context.inputs[artifact.kind] for artifact in config.consumes}
    return inputs | dict.fromkeys(config.named_inputs(), context.inputs[Policy.kind])


@pytest.fixture(scope="session")
def jobs(context: StageContext, source: TableSource) -> dict[str, Job]:
    """Every stage as a job on one device, without folders."""
    assert isinstance(source.config, FileConfig)
    coins = FileConfig(
        path=source.config.path,
        rows=RowMapping(family="coins"),
        test_frac=0.1,
        validation_frac=0.1,
    )
    options: Any = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "tiny.yaml"))
    tiny = ReasoningGymConfig(options["families"], options["test_frac"], options["validation_frac"])
    jobs = {
        name: Job(
            name=name,
            stage=config_of(name),
            seed=3,
            out_dir=Path(),
            work_dir=Path(),
            inputs=inputs_of(name, context),
            model=WIDE if name == "pretrain" else context.model,
            data=tiny if name == "pretrain" else coins,
            hardware=HardwareConfig(micro_batch_size=1, threads=1),
            benchmarks={},
            tracking=None,
        )
        for name in NAMES
    }
    sft = jobs["sft"]
    jobs["lora"] = replace(sft, model=replace(context.model, adapter=AdapterConfig(rank=4)))
    # FSDP sums the norm of a clipped gradient in another order. With larger steps that difference
    # would grow, as it decides how weights round to bfloat16.
    config: Any = sft.stage
    small_steps = replace(config, optimization=replace(config.optimization, learning_rate=1e-3))
    reference = replace(sft.hardware, kernels="reference")
    jobs["reference"] = replace(sft, hardware=reference)
    jobs["padded"] = replace(jobs["midtrain"], hardware=reference)
    watched = replace(config, weights="best_pass@1", validation=COINS, validate_every_steps=5)
    jobs["best"] = replace(sft, stage=watched)
    jobs["best_rl"] = replace(jobs["rl"], stage=config_of("rl_best"))
    jobs["curriculum"] = replace(jobs["rl"], stage=config_of("rl_curriculum"))
    jobs["opd"] = replace(jobs["rl"], stage=config_of("opd"), inputs=inputs_of("opd", context))
    # What reads the whole update's tokens, whichever rank has them.
    objective: Any = replace(
        config_of("rl"),
        epochs=2,
        policy_loss=GSPOConfig(clip_low=0.01, clip_high=0.01),
        entropy=EntropyConfig(bonus=0.05, top_frac=0.5),
        importance=ImportanceConfig("mask", "sequence", 0.5, 2.0),
    )
    jobs["objective"] = replace(jobs["rl"], stage=objective)
    jobs["mixed"] = replace(sft, stage=small_steps, model=replace(context.model, dtype="mixed"))
    return jobs


def with_many_steps(job: Job) -> Job:
    """The job with so many steps that it does not end by itself."""
    return with_length(job, 4000)


def with_length(job: Job, steps: int) -> Job:
    """The job with so many steps, and a state at every second one."""
    config: Any = job.stage
    length = replace(config.optimization, length=f"{steps} steps", checkpoint_every_steps=2)
    return replace(job, stage=replace(config, optimization=length))


def last_step(work: Path) -> int:
    """The step of the newest state that was saved below `work`; 0 = there is none."""
    return max((int(path.name.split("-")[1]) for path in work.rglob("step-*-*")), default=0)


def file_checksums(folder: Path) -> dict[str, str]:
    """The checksum of each file below `folder`, by its relative name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def stage_processes(folder: Path) -> dict[int, str]:
    """Pid and rank ("" = torchrun) of each live process of a stage whose files are in `folder`."""
    processes = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode()
            directory = os.readlink(entry / "cwd")
            environ = (entry / "environ").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if "reasoning_lab.launch." in command and str(folder) in command + directory:
            ranks = [word[5:] for word in environ if word.startswith("RANK=")]
            processes[int(entry.name)] = ranks[0] if ranks else ""
    return processes


def assert_processes_end(folder: Path) -> None:
    """Soon no process of a stage whose files are in `folder` is left."""
    deadline = time.monotonic() + 120
    while stage_processes(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not stage_processes(folder)


def after_first_checkpoint(work: Path, action: Callable[[], None]) -> threading.Thread:
    """Call `action` in a thread as soon as a training state is saved below `work`."""

    def wait() -> None:
        while not any(work.rglob("step-*")):
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def with_placement(job: Job, folder: Path, strategy: str, devices: int = 2) -> Job:
    """The job on `devices` devices, with new folders below `folder`."""
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
    """Folder and outcome of every stage, run in this process."""
    return {
        name: run_in_process(job, verifier, tmp_path_factory.mktemp(name) / "run")
        for name, job in jobs.items()
    }


def run_in_process(job: Job, verifier: Verifier, folder: Path) -> tuple[Path, Any]:
    """Run the job in this process on one device; its folder and outcome."""
    single_device = with_placement(job, folder, "single", devices=1)
    source = job.data.build()
    return single_device.out_dir, run_job(single_device, source, {}, verifier, Tracker())


def train_together(jobs: Mapping[str, Job], root: Path, processes: int = 2) -> None:
    """Train all jobs in the same processes, see `distributed_worker`; names are folder names."""
    for name, job in jobs.items():
        folder, work = root / name, root / f"work-{name}"
        folder.mkdir()
        job.work_dir.rename(work)
        write_job(replace(job, work_dir=work), folder)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    # The processes end when their standard input is closed.
    stdin, write_end = os.pipe()
    with (root / "log").open("w") as log:
        process = subprocess.run(
            [sys.executable, *torchrun, "-m", "tests.support.distributed_worker", str(root)],
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
        )
    os.close(stdin)
    os.close(write_end)
    assert process.returncode == 0, (root / "log").read_text()[-6000:]


def max_weight_difference(one: Path, other: Path) -> float:
    """The largest absolute difference between two policies' weights."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return max(float((left[key] - right[key]).abs().max()) for key in left)


def error_of_killed_rank(job: Job, root: Path) -> str:
    """The error after rank 1 is killed; all processes under `root` end and a state exists."""

    def kill() -> None:
        (pid,) = [pid for pid, rank in stage_processes(root).items() if rank == "1"]
        os.kill(pid, signal.SIGKILL)

    after_first_checkpoint(job.work_dir, kill)
    with pytest.raises(UserError) as error:
        launched(job)
    assert "\n" not in str(error.value)
    assert not stage_processes(root)
    # The job can be resumed.
    (states,) = job.work_dir.glob(f"{job.hardware.strategy}-2x*")
    assert last_checkpoint(states) is not None
    return str(error.value)


def assert_processes_end_with_command(job: Job, root: Path) -> None:
    """Kill a command that runs `job`; soon no process under `root` is left."""
    folder = root / "job-file"
    folder.mkdir()
    write_job(job, folder)
    code = (
        "import pathlib, sys; from reasoning_lab.launch.job import launched, read_job; "
        "launched(read_job(pathlib.Path(sys.argv[1])))"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    after_first_checkpoint(job.work_dir, command.kill).join()
    command.wait()
    assert_processes_end(root)


def assert_equals_one_process(job: Job, single: tuple[Path, Any]) -> None:
    """Launch the job; its weights, tokens and ledger equal those of one process."""
    alone, expected = single
    outcome = launched(job)
    assert max_weight_difference(alone, job.out_dir) < 1e-5
    assert outcome.metrics["train_tokens"] == expected.metrics["train_tokens"]
    assert outcome.ledger == expected.ledger != {}
