"""Run one stage: in this process on one device, else by torchrun on its saved, resolved config.

Both go through `run_job`. The processes find the job as YAML in the stage's work folder, on this
machine or on those of a cluster, read what the stage's inputs hold for themselves, and share the
training; rank 0 tracks it and fills the artifact's folder. They end with the process that launched
them, and it ends when one of them does.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import datasets
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import transformers
import yaml

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.identity import as_plain
from reasoning_lab.config.targets import from_plain
from reasoning_lab.data.sources.draw_counts import draws_counted
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.run import Outcome
from reasoning_lab.launch.ray import run_on_ray
from reasoning_lab.launch.slurm import OUT, run_on_slurm
from reasoning_lab.launch.torchrun import MISTAKES, OUTCOME, STOPPED, Launch
from reasoning_lab.models.policy import free_memory
from reasoning_lab.system import malloc
from reasoning_lab.system.files import empty_folder, write_atomically
from reasoning_lab.system.interrupts import Interrupted, clear_requests, forward_signals
from reasoning_lab.system.ranks import SILENCE, rank
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.tracking.trackers import tracker_of
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.job import Job
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier, build_verifier

_JOB = "job.yaml"


def run_job(
    job: Job,
    source: ProblemSource,
    benchmark_sources: Mapping[str, ProblemSource],
    verifier: Verifier,
    tracker: Tracker,
) -> Outcome:
    """Fill the job's `out_dir`, in this process."""
    pl.seed_everything(job.seed, verbose=False)
    ledger = Ledger()
    context = StageContext(
        **vars(job),
        source=source,
        benchmark_sources=benchmark_sources,
        verifier=verifier,
        tracker=tracker,
        ledger=ledger,
        progress=Progress(job.name, job.position if rank() == 0 else None, ledger),
    )
    try:
        with draws_counted(ledger):
            metrics = context.run_stage()
    finally:
        # A trainer refers to itself, so its model would stay beside the next stage's.
        free_memory()
    ledger.write_rows(job.out_dir)
    tracker.log(ledger.metrics())
    return Outcome(metrics, ledger.as_json())


def launched(job: Job) -> Outcome:
    """Fill the job's `out_dir` in processes of their own, one a device.

    Raises:
        UserError: What the stage said of the user's mistake; or a process failed or was killed.
        Interrupted: Ctrl-C or SIGTERM ended it.
    """
    folder = job.work_dir.absolute() / "launch"
    launch = Launch(job.name, job.machines, job.processes, job.gpus, folder)
    with forward_signals(job.work_dir):
        wrong = _run(job, launch)
        if (folder / STOPPED).exists():
            raise Interrupted(*json.loads((folder / STOPPED).read_text(encoding="utf-8")))
    if wrong is None:
        return Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    for mistake in sorted(folder.glob(MISTAKES.format("*"))):
        raise UserError(mistake.read_text(encoding="utf-8"))
    raise UserError(
        f"stages.{job.name}: {wrong}; the logs in {folder} tell more; run the same command again "
        "to go on from the last checkpoint"
    )


def _run(job: Job, launch: Launch) -> str | None:
    """Run the job where its hardware says; the failure in words, or None."""

    def prepare(out_dir: Path) -> None:
        empty_folder(launch.folder)
        write_job(replace(job, out_dir=out_dir), launch.folder)

    if job.hardware.slurm is not None:
        # The job outlives this command, and the store removes a killed command's folder.
        out_dir = launch.folder / OUT
        wrong = run_on_slurm(
            job.hardware.slurm,
            launch,
            job.work_dir.absolute(),
            as_plain(job.hardware),
            lambda: prepare(out_dir),
        )
        if wrong is None:
            out_dir.rename(job.out_dir)
        return wrong
    prepare(job.out_dir)
    clear_requests(job.work_dir)
    if job.hardware.ray is not None:
        return run_on_ray(job.hardware.ray, launch, job.work_dir, job.out_dir)
    wrong = launch.run_here()
    return wrong and (launch.failed_process() or "the processes ended too early")


def write_job(job: Job, folder: Path) -> None:
    """Save `job` in `folder`, for `read_job`."""
    # Not JSON, which would turn the numbers that some keys are into text.
    text = yaml.safe_dump(as_plain(job, tagged=object), sort_keys=False)
    (folder / _JOB).write_text(text, encoding="utf-8")


def read_job(folder: Path) -> Job:
    """The job that `write_job` saved."""
    job = from_plain(Job, yaml.safe_load((folder / _JOB).read_text(encoding="utf-8")))
    return replace(job, out_dir=job.out_dir.absolute(), work_dir=job.work_dir.absolute())


def work(folder: Path, verifier: Verifier) -> None:
    """Do this rank's part of the job in `folder`, within a process group.

    Raises:
        UserError: As the stage does; it is written down for the process that launched this one.
        Interrupted: Likewise.
    """
    job = read_job(folder)
    try:
        with contextlib.ExitStack() as stack:
            tracker: Tracker = Tracker()
            if rank() == 0:
                tracker = tracker_of(job.tracking, job.position.live_dir)
                stack.callback(tracker.finish)
            else:
                # What every rank writes beside the policy counts on rank 0 alone.
                scratch = stack.enter_context(tempfile.TemporaryDirectory())
                job = replace(job, out_dir=Path(scratch))
            source = job.data.build()
            sources = {
                name: benchmark.data.build()
                for name, benchmark in job.benchmarks.items()
                if benchmark.data is not None
            }
            outcome = run_job(job, source, sources, verifier, tracker)
    except Interrupted as stop:
        if rank() == 0:
            content = json.dumps([str(stop), stop.signum])
            write_atomically(
                folder / STOPPED, lambda draft: draft.write_text(content, encoding="utf-8")
            )
        raise
    except UserError as mistake:
        (folder / MISTAKES.format(rank())).write_text(str(mistake), encoding="utf-8")
        raise
    if rank() == 0:
        content = json.dumps(asdict(outcome))
        write_atomically(
            folder / OUTCOME, lambda draft: draft.write_text(content, encoding="utf-8")
        )


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
    dist.init_process_group(backend, timeout=SILENCE)
    if rank() != 0:
        os.dup2(2, 1)  # One rank's progress is enough.
    logging.basicConfig(
        format="%(message)s", level=logging.INFO if rank() == 0 else logging.WARNING
    )
    quiet_libraries()
    try:
        yield
    finally:
        dist.destroy_process_group()


def quiet_libraries() -> None:
    """Let libraries say only what is wrong; how far a stage is is said by its progress."""
    # The HTTP clients, of vLLM and of the hub, name each request.
    for name in ("pytorch_lightning", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # DeepSpeed sets its level when it is imported.
    logging.getLogger("DeepSpeed").addFilter(_is_error)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning\.")
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def end_with_launcher() -> None:
    """Watch the input that the launching process holds open, and end when it is closed."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Do this rank's part of the job in the folder that the command line names."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # torchrun ignores it.
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
