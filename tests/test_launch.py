"""What a stage's own processes are told."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.sources import FileSource
from reasoning_lab.hardware import EngineHardwareConfig, HardwareConfig
from reasoning_lab.launch import Job, read_job, write_job
from reasoning_lab.schema import ModelConfig, ProblemsConfig, StageConfig
from reasoning_lab.stages.rl.config import RLConfig
from reasoning_lab.targets import TRUSTED_VARIABLE
from reasoning_lab.tracking import NullTracker
from reasoning_lab.verify import Verifier

from .stages import optimization


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Its mappings too: none of their defaults comes back."""
    job = Job(
        name="rl",
        config=RLConfig(
            run="reasoning_lab.stages.rl.module.run",
            produces="policy",
            problems=ProblemsConfig([1], 8),
            group_size=4,
            max_new_tokens=20,
            rewards={"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
            optimization=optimization(),
        ),
        seed=3,
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        inputs={"policy": tmp_path / "policy"},
        authors={"policy": "f457f0b4"},
        lineage=[tmp_path / "policy"],
        model=ModelConfig(architecture={"model_type": "qwen3"}),
        data={"_target_": "reasoning_lab.data.sources.FileSource", "families": {"sum": {1: "a"}}},
        hardware=HardwareConfig(engine=EngineHardwareConfig(rollout_urls=["http://one", "b"])),
        benchmarks={},
        tracking=None,
    )
    write_job(job, tmp_path)
    assert read_job(tmp_path) == job


class Trainer:
    """Refers to itself, as a real one does."""

    def __init__(self) -> None:
        self.loop = self


alive: list[weakref.ref[Trainer]] = []


def trained(config: Any, context: Any) -> dict[str, Any]:
    trainer = Trainer()
    alive.append(weakref.ref(trainer))
    return {"name": context.name}


def test_nothing_of_a_stage_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_VARIABLE, "tests")
    job = Job(
        name="sft",
        config=StageConfig(run=f"{__name__}.trained", produces="policy"),
        seed=3,
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        inputs={},
        authors={},
        lineage=[],
        model=ModelConfig(architecture={"model_type": "qwen3"}),
        data={},
        hardware=HardwareConfig(),
        benchmarks={},
        tracking=None,
    )
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1 + 1", "gold": "2"}\n')
    source = FileSource(str(problems), 0.1, 0.1, {"checker": "number"})
    gc.disable()
    try:
        with Verifier(workers=1, timeout_s=20, memory_mb=256) as verifier:
            assert job.run(source, {}, verifier, NullTracker()).metrics == {"name": "sft"}
        (trainer,) = alive
        assert trainer() is None
    finally:
        gc.enable()


def test_a_verifiers_worker_does_not_import_what_its_rank_did() -> None:
    code = (
        "import runpy, sys; runpy.run_module('reasoning_lab.launch_rank', run_name='__mp_main__'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
