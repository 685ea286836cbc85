"""What a stage's own processes are told."""

from pathlib import Path

from reasoning_lab.hardware import EngineHardwareConfig, HardwareConfig
from reasoning_lab.launch import Job, read_job, write_job
from reasoning_lab.schema import ModelConfig, ProblemsConfig
from reasoning_lab.stages.rl.config import RLConfig

from .test_stages import optimization


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
