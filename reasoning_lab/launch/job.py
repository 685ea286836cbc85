"""Run one stage: in this process on one device, else by torchrun on its saved, resolved config.

Both go through `Job.run`. The processes find the job as YAML in the stage's work folder, on this
machine or on those of a cluster, read what the stage's inputs hold for themselves, and share the
training; rank 0 tracks it and fills the artifact's folder. They end with the process that launched
them, and it ends when one of them does.
"""

import contextlib
import json
import logging
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import transformers
import yaml
from omegaconf import DictConfig, OmegaConf

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.targets import factory, resolve
from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.launch.ray import run_on_ray
from reasoning_lab.launch.slurm import run_on_slurm
from reasoning_lab.launch.torchrun import log_paths, run_locally
from reasoning_lab.models.policy import free_memory
from reasoning_lab.system import malloc
from reasoning_lab.system.files import write_atomically
from reasoning_lab.system.interrupts import Interrupted, forward_signals
from reasoning_lab.system.ranks import rank
from reasoning_lab.tracking.tracker import NullTracker, Tracker
from reasoning_lab.tracking.wandb import WandbTracker
from reasoning_lab.training.loop import StageContext
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier, build_verifier

_JOB, _OUTCOME = "job.yaml", "outcome.json"
_MISTAKE = "mistake-{}.txt"
_STOPPED = "stopped.json"
# Silent processes are given up for lost; the longest silence is a slow rank's sampling.
_SILENCE = timedelta(hours=2)


class Outcome(NamedTuple):
    """What a stage says of the folder that it filled.

    Attributes:
        metrics: Its results.
        ledger: What came in, went out and was dropped, as `Ledger.as_json` has it.
    """

    metrics: Metrics
    ledger: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """A stage that is to be made, without anything that lives in one process.

    Attributes:
        name: The stage's name in the recipe.
        config: Its own config.
        seed: Of everything random in it.
        out_dir: Empty folder that becomes the artifact.
        work_dir: Folder that outlives a kill.
        inputs: Artifact folder of each kind that the stage consumes.
        authors: Fingerprint of each input, by kind.
        lineage: Artifact folders of the inputs and of every stage whose problems reached them.
        model: The student's config.
        data: `_target_` and options of the problem source.
        hardware: Devices and sizes that change no result.
        benchmarks: What the run's policies are evaluated on.
        tracking: Arguments of the W&B run; None = there is none.
    """

    name: str
    config: LabStage
    seed: int
    out_dir: Path
    work_dir: Path
    inputs: Mapping[str, Path]
    authors: Mapping[str, str]
    lineage: Sequence[Path]
    model: ModelConfig
    data: Mapping[str, Any]
    hardware: HardwareConfig
    benchmarks: Mapping[str, BenchmarkConfig]
    tracking: Mapping[str, Any] | None

    def run(
        self,
        source: ProblemSource,
        benchmark_sources: Mapping[str, ProblemSource],
        verifier: Verifier,
        tracker: Tracker,
    ) -> Outcome:
        """Fill `out_dir`, in this process."""
        pl.seed_everything(self.seed, verbose=False)
        ledger = Ledger()
        context = StageContext(
            name=self.name,
            seed=self.seed,
            out_dir=self.out_dir,
            work_dir=self.work_dir,
            inputs=self.inputs,
            authors=self.authors,
            lineage=self.lineage,
            model=self.model,
            source=source,
            hardware=self.hardware,
            verifier=verifier,
            tracker=tracker,
            benchmarks=self.benchmarks,
            benchmark_sources=benchmark_sources,
            ledger=ledger,
        )
        try:
            metrics = self.config.run(context)
        finally:
            # A trainer refers to itself, so its model would stay beside the next stage's.
            free_memory()
        ledger.write_rows(self.out_dir)
        tracker.log(ledger.metrics())
        return Outcome(metrics, ledger.as_json())

    @property
    def spread(self) -> tuple[int, int]:
        """Machines that it takes, and processes on each."""
        return (self.hardware.nodes, self.hardware.devices) if self._is_shared else (1, 1)

    @property
    def gpus(self) -> int:
        """Of each machine, if it has any."""
        if self.hardware.accelerator == "cpu":
            return 0
        engine = self.hardware.sampling
        return max(self.spread[1], engine.tensor_parallel_size * engine.data_parallel_size)

    @property
    def launches(self) -> bool:
        """Whether it takes processes of its own."""
        return self._is_shared or self.hardware.on_cluster

    @property
    def _is_shared(self) -> bool:
        """Whether it is a training that a strategy spreads over processes."""
        return isinstance(self.config, TrainingStage) and self.hardware.strategy != "single"


def tracker_of(tracking: Mapping[str, Any] | None) -> Tracker:
    """The W&B run that a job names, or none."""
    if tracking is None:
        return NullTracker()
    return WandbTracker(**{**tracking, "folder": Path(tracking["folder"])})


def launched(job: Job) -> Outcome:
    """Fill the job's `out_dir` in processes of their own, one a device.

    Raises:
        UserError: What the stage said of the user's mistake; or a process failed or was killed.
        Interrupted: Ctrl-C or SIGTERM ended it.
    """
    folder = job.work_dir.absolute() / "launch"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [
        folder / _OUTCOME,
        folder / _STOPPED,
        *folder.glob(_MISTAKE.format("*")),
        *log_paths(folder),
    ]:
        stale.unlink(missing_ok=True)
    write_job(job, folder)
    nodes, processes = job.spread
    where = job.name, nodes, processes, job.gpus, folder
    with forward_signals(job.work_dir):
        if job.hardware.slurm is not None:
            wrong = run_on_slurm(job.hardware.slurm, *where)
        elif job.hardware.ray is not None:
            wrong = run_on_ray(job.hardware.ray, *where)
        else:
            wrong = run_locally(processes, folder)
        if (folder / _STOPPED).exists():
            raise Interrupted(*json.loads((folder / _STOPPED).read_text(encoding="utf-8")))
    if wrong is None:
        return Outcome(**json.loads((folder / _OUTCOME).read_text(encoding="utf-8")))
    for mistake in sorted(folder.glob(_MISTAKE.format("*"))):
        raise UserError(mistake.read_text(encoding="utf-8"))
    raise UserError(
        f"stages.{job.name}: {wrong}; the logs in {folder} tell more; run the same command again "
        "to go on from the last checkpoint"
    )


def write_job(job: Job, folder: Path) -> None:
    """Save `job` in `folder`, for `read_job`."""
    content = {item.name: getattr(job, item.name) for item in fields(job)}
    content |= {key: asdict(content[key]) for key in ("config", "model", "hardware")}
    content["benchmarks"] = {name: asdict(held) for name, held in job.benchmarks.items()}
    content |= {key: str(content[key]) for key in ("out_dir", "work_dir")}
    content["inputs"] = {kind: str(path) for kind, path in job.inputs.items()}
    content |= {"lineage": [str(path) for path in job.lineage], "authors": dict(job.authors)}
    kind = type(job.config)
    content["schema"] = f"{kind.__module__}.{kind.__qualname__}"
    if job.tracking is not None:
        named = {"config": asdict(job.tracking["config"]), "folder": str(job.tracking["folder"])}
        content["tracking"] = {**job.tracking, **named}
    # Not JSON, which would turn the numbers that some keys are into text.
    (folder / _JOB).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def read_job(folder: Path) -> Job:
    """The job that `write_job` saved."""
    content = yaml.safe_load((folder / _JOB).read_text(encoding="utf-8"))
    schema = resolve(content.pop("schema"), "schema")
    content["config"] = _typed(schema, content["config"])
    content["model"] = _typed(ModelConfig, content["model"])
    content["hardware"] = _typed(HardwareConfig, content["hardware"])
    content["benchmarks"] = {
        name: _typed(BenchmarkConfig, held) for name, held in content["benchmarks"].items()
    }
    for key in ("out_dir", "work_dir"):
        content[key] = Path(content[key]).absolute()
    content["inputs"] = {kind: Path(path) for kind, path in content["inputs"].items()}
    content["lineage"] = [Path(path) for path in content["lineage"]]
    if content["tracking"] is not None:
        content["tracking"]["config"] = _typed(TrackerConfig, content["tracking"]["config"])
    return Job(**content)


def _typed(schema: Any, plain: Mapping[str, Any]) -> Any:
    blank = OmegaConf.structured(schema)
    _empty_mappings(blank)
    return OmegaConf.to_object(OmegaConf.merge(blank, dict(plain)))


def _empty_mappings(node: DictConfig) -> None:
    """Take out of `node` the defaults of its free mappings, to which a merge would add."""
    for key in node:
        child = None if OmegaConf.is_missing(node, key) else node[key]
        if isinstance(child, DictConfig) and OmegaConf.get_type(child) is dict:
            node[key] = {}
        elif isinstance(child, DictConfig):
            _empty_mappings(child)


def work(folder: Path, verifier: Verifier) -> None:
    """Do this rank's part of the job in `folder`, within a process group.

    Raises:
        UserError: As the stage does; it is written down for the process that launched this one.
        Interrupted: Likewise.
    """
    job = read_job(folder)
    try:
        with contextlib.ExitStack() as stack:
            tracker: Tracker = NullTracker()
            if rank() == 0:
                tracker = tracker_of(job.tracking)
                stack.callback(tracker.finish)
            else:
                # What every rank writes beside the policy counts on rank 0 alone.
                scratch = stack.enter_context(tempfile.TemporaryDirectory())
                job = replace(job, out_dir=Path(scratch))
            source = factory(job.data, "data")()
            sources = {
                name: factory(held.data, f"benchmarks.{name}.data")()
                for name, held in job.benchmarks.items()
                if held.data is not None
            }
            outcome = job.run(source, sources, verifier, tracker)
    except Interrupted as stop:
        if rank() == 0:
            content = json.dumps([str(stop), stop.signum])
            write_atomically(
                folder / _STOPPED, lambda draft: draft.write_text(content, encoding="utf-8")
            )
        raise
    except UserError as mistake:
        (folder / _MISTAKE.format(rank())).write_text(str(mistake), encoding="utf-8")
        raise
    if rank() == 0:
        (folder / _OUTCOME).write_text(json.dumps(outcome._asdict()), encoding="utf-8")


@contextlib.contextmanager
def process_group(hardware: HardwareConfig) -> Iterator[None]:
    """Join the others that torchrun started; leave them at the end."""
    on_gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        torch.set_num_threads(hardware.threads or max(1, cores // processes))
        malloc.return_freed_blocks()
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=_SILENCE)
    if rank() != 0:
        os.dup2(2, 1)  # One rank's progress is enough.
    logging.basicConfig(
        format="%(message)s", level=logging.INFO if rank() == 0 else logging.WARNING
    )
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        dist.destroy_process_group()


def end_with_launcher() -> None:
    """Watch the input that the launching process holds open, and end when it is closed."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do this rank's part of the job in the folder that the command line names."""
    end_with_launcher()
    folder = Path(sys.argv[1])
    try:
        hardware = read_job(folder).hardware
        # Starts no process until the stage verifies.
        with process_group(hardware), build_verifier(hardware) as verifier:
            work(folder, verifier)
    except Interrupted:
        # What the command is to say is written down.
        os._exit(0)
    except BaseException:
        # Not through the interpreter's own end, which would wait for peers that are gone.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
