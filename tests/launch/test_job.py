"""What a stage's own processes are told."""

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.commands.run import print_ledger
from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.data.sources.config import MixtureConfig, ReasoningGymConfig
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.launch.job import read_job, run_job, write_job
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.tracking.progress import Lines
from reasoning_lab.tracking.tracker import TrackedRun, Tracker
from reasoning_lab.training.job import Job
from reasoning_lab.training.stage import LabStage
from reasoning_lab.verify import Verifier
from tests.support.sources import file_source
from tests.support.stages import optimization


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Its mappings too: none of their defaults comes back."""
    job = Job(
        name="rl",
        stage=RLStage(
            problems=ProblemsConfig([1], 8),
            group_size=4,
            max_new_tokens=20,
            rewards={"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
            optimization=optimization(),
        ),
        seed=3,
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        inputs={"policy": Policy(tmp_path / "policy", is_base=True, revision="main")},
        model=ModelConfig(architecture={"model_type": "qwen3"}),
        data=MixtureConfig({"gym": ReasoningGymConfig({"sum": {1: {"a": 2}}})}, {"gym": 1.0}),
        hardware=HardwareConfig(sampling=SamplingHardwareConfig(rollout_urls=["http://one", "b"])),
        benchmarks={"heldout": BenchmarkConfig(levels=[1], count=2, samples=1)},
        tracking=TrackedRun(
            config=TrackerConfig(tags=["mine"]),
            modes={"wandb": "offline"},
            runs_dir=tmp_path,
            run_id="abc",
            name="rl",
            group="recipe",
            job_type="rl",
            tags=["a"],
            settings={"rate": 1e-5},
        ),
    )
    write_job(job, tmp_path)
    assert read_job(tmp_path) == job


class Trainer:
    """Refers to itself, as a real one does."""

    def __init__(self) -> None:
        self.loop = self


alive: list[weakref.ref[Trainer]] = []


@dataclass
class Circular(LabStage):
    name, produces = "circular", Policy

    def run(self, context: Any) -> dict[str, Any]:
        trainer = Trainer()
        alive.append(weakref.ref(trainer))
        return {"name": context.name}


@pytest.fixture
def source(tmp_path: Path) -> TableSource:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1 + 1", "gold": "2"}\n')
    return file_source(str(problems), 0.1, 0.1, {"checker": "number"})


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        name="sft",
        stage=Circular(),
        seed=3,
        out_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        model=ModelConfig(architecture={"model_type": "qwen3"}),
        hardware=HardwareConfig(),
        benchmarks={},
        tracking=None,
    )


def test_nothing_of_a_stage_stays_in_memory(job: Job, source: TableSource) -> None:
    gc.disable()
    try:
        with Verifier(workers=1, timeout_s=20, memory_mb=256) as verifier:
            assert run_job(job, source, {}, verifier, Tracker()).metrics == {"name": "sft"}
        (trainer,) = alive
        assert trainer() is None
    finally:
        gc.enable()


@dataclass
class Dropping(LabStage):
    name, produces = "dropping", Policy

    def run(self, context: Any) -> dict[str, Any]:
        context.ledger.take("things", 9)
        context.ledger.drop("things", "odd", 2, origins=["one", "three"])
        return {}


class LoggedTracker(Tracker):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.logged |= metrics


def test_what_a_stage_drops_leaves_it_with_its_metrics(job: Job, source: TableSource) -> None:
    job = replace(job, stage=Dropping())
    job.out_dir.mkdir()
    tracker = LoggedTracker()
    with Verifier(workers=1, timeout_s=20, memory_mb=256) as verifier:
        outcome = run_job(job, source, {}, verifier, tracker)
    examples = {"odd": ["one", "three"]}
    assert outcome.ledger == {
        "things": {"in": 9, "out": 7, "dropped": {"odd": 2}, "examples": examples}
    }
    assert tracker.logged == {
        "ledger/things/in": 9,
        "ledger/things/out": 7,
        "dropped/things/odd": 2,
    }
    rows = [json.loads(line) for line in (job.out_dir / "dropped.jsonl").read_text().splitlines()]
    assert rows == [
        {"unit": "things", "reason": "odd", "origin": name} for name in ("one", "three")
    ]


def test_a_reused_artifact_repeats_only_its_warnings(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger()
    ledger.take("things", 9)
    ledger.drop("things", "odd", 2)
    printed = []
    for reused in (False, True):
        print_ledger(Lines(None), "sft", ledger, reused)
        printed.append(capsys.readouterr().out)
    assert printed == ["  7 of 9 things go on; dropped: 2 odd\n", ""]
    warning = "sft: more than a tenth of the things was dropped: 2 of 9 (22%), 2 odd."
    assert [record.message for record in caplog.records] == [warning] * 2


def test_a_verifiers_worker_does_not_import_what_its_rank_did() -> None:
    code = (
        "import runpy, sys; runpy.run_module('reasoning_lab.launch.rank', run_name='__mp_main__'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
