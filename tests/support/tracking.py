"""A run to be tracked, and what it logs."""

from collections.abc import Mapping
from pathlib import Path

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.tracking.tracker import TrackedRun
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


def tracked_run(
    folder: Path, modes: Mapping[str, str], config: TrackerConfig | None = None
) -> TrackedRun:
    """A run of the stage `sft` with these trackers and modes."""
    return TrackedRun(
        config=config or TrackerConfig(),
        modes=modes,
        runs_dir=folder,
        run_id="abc123",
        name="sft",
        group="recipe-7",
        job_type="sft",
        tags=["sft", "stages.rl.policy_loss.clip_low=0.1", "x" * 80],
        settings={"seed": 0, "optimization": {"steps": 3}},
    )


def rollout(verdict: Verdict, text: str = "\\boxed{2}") -> Rollout:
    problem = Problem("1 + 1?", "2", "math", "sums")
    return Rollout(problem, Completion([1, 2], text), "2", verdict, "author")
