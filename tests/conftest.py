"""Shared by several test files: composed recipes, stages and jobs, one finished smoke run."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

# Before torch is imported: these models are too small to gain from a second thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
# Before datasets is imported: no test downloads from the hub, or fills the user's cache.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=tempfile.mkdtemp(prefix="datasets-"))

from hydra.core.global_hydra import GlobalHydra

from reasoning_lab.cli import main
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports
from tests.support.composition import composed_recipe

SMOKE = [
    "experiment=smoke",
    "tracker.mode=disabled",
    "hardware.threads=1",
    "benchmarks.heldout.count=14",
]

# The tiny recipe's rates, with which a few steps make a policy that is right now and then.
FAST_PRETRAINING = [
    "optimizer@stages.pretrain.optimization.optimizer=muon",
    "schedule@stages.pretrain.optimization.schedule=trapezoid",
    "stages.pretrain.optimization.schedule={warmup_frac: 0.05, decay_frac: 0.8}",
    "stages.pretrain.optimization.optimizer.weight_decay=0.0",
    "stages.pretrain.optimization.learning_rate=4e-3",
    "stages.pretrain.problems.levels=[1,2,3]",
    "stages.pretrain.steps_frac=0.85",
    "stages.pretrain.steps_per_row=6",
]

Compose = Callable[..., Recipe]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Load fixtures that import torch, but not where `-n` leaves the tests to other processes."""
    if session.config.getoption("numprocesses", None):
        return (yield)
    with gc_frozen_imports():
        for module in ("stages", "launches"):
            session.config.pluginmanager.import_plugin(f"tests.support.{module}")
        return (yield)


@pytest.fixture
def composed() -> Compose:
    return composed_recipe


def start_lab(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The command in a separate process, which handles SIGINT even if pytest's shell ignores it."""
    return subprocess.Popen(
        [sys.executable, "-m", "reasoning_lab", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lab(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the finished command."""
    process = start_lab(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=250)
    return process.returncode, out, err


def lab_here(*arguments: str, cwd: Path) -> int:
    """Exit code of the command, run in this process: importing torch again takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        composes = arguments[0] not in ("export", "store") and not (
            arguments[0] == "report" and any(word.startswith("path=") for word in arguments)
        )
        quiet = ["hydra/job_logging=none"] if composes else []
        patch.setattr(sys, "argv", ["reasoning-lab", *arguments, *quiet])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        GlobalHydra.instance().clear()
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture(scope="module", autouse=True)
def _earlier_files_frozen() -> None:
    """Every stage ends with a garbage collection, which need not see what earlier files left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_cache_left_behind() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the smoke recipe ran to its end."""
    folder = tmp_path_factory.mktemp("smoke")
    assert lab_here(*SMOKE, cwd=folder) == 0
    return folder
