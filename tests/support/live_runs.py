"""Runs as `reasoning-lab watch` finds them, written by what writes them in a real run."""

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.tracking.history import History
from reasoning_lab.tracking.live import LiveRun
from reasoning_lab.tracking.progress import Progress, RunPosition
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

SFT, EVALUATED, RL = "a" * 16, "b" * 16, "c" * 16
RUN = "recipes/2026-11-30_10-00-00-000000"


def live_run(runs: Path, name: str = RUN, title: str = "experiment=mine") -> LiveRun:
    """A run of sft, its evaluation and rl."""
    nodes = [
        {"name": "sft", "stage": "sft", "fingerprint": SFT, "inputs": []},
        {"name": "sft/heldout", "stage": "evaluate", "fingerprint": EVALUATED, "inputs": [SFT]},
        {"name": "rl", "stage": "rl", "fingerprint": RL, "inputs": [SFT]},
    ]
    return LiveRun(runs / name, {"title": title, "variant": "the full recipe", "seed": 3}, nodes)


def failed_run(runs: Path, reason: str) -> None:
    """A run that failed while sft was made."""
    with suppress(RuntimeError), live_run(runs) as run:
        run.started(SFT)
        raise RuntimeError(reason)


def rollouts(count: int, text: str = "") -> list[Rollout]:
    """Every third is wrong; the completions begin with `text`."""
    return [
        Rollout(
            Problem(f"What is $\\frac{{{n}}}{{2}}$ of {text}?", "1", "math", "halves"),
            Completion([1] * 7, f"{text} \\[x^2 = {n}\\] \\boxed{{{n}}}"),
            str(n),
            Verdict.WRONG if n % 3 == 0 else Verdict.CORRECT,
            "author",
        )
        for n in range(count)
    ]


def trained_sft(runs: Path, steps: int = 4) -> Record:
    """The artifact of sft, whose loss at step n is 1 / (1 + n)."""

    def build(out_dir: Path, work_dir: Path) -> Metadata:
        history = History()
        for step in range(steps):
            history.log_metrics({"train/loss": 1 / (1 + step)}, step)
        history.write(out_dir)
        ledger = Ledger()
        ledger.take("documents", 9)
        ledger.drop("documents", "too_long", 2)
        metrics = {"train_tokens": 1234, "wall_s": 61.0}
        return Metadata(
            kind="policy", identity={}, inputs={}, seed=3, metrics=metrics, ledger=ledger.as_json()
        )

    return Store(runs / "store").obtain("sft", SFT, build)[0]


def evaluated_sft(runs: Path, count: int = 30, text: str = "") -> Record:
    """The artifact of its evaluation, with so many completions."""

    def build(out_dir: Path, work_dir: Path) -> Metadata:
        write_rollouts(out_dir / "completions.parquet", rollouts(count, text))
        metrics = {"pass@1": 2 / 3, "n": count}
        return Metadata(
            kind="evaluation", identity={}, inputs={"policy": SFT}, seed=3, metrics=metrics
        )

    return Store(runs / "store").obtain("evaluate", EVALUATED, build)[0]


def training(run: LiveRun, total: int) -> AbstractContextManager[Any]:
    """A task of rl with `total` steps; an unknown stage follows it."""
    position = RunPosition(step=3, steps=3, later_unknown=1, live_dir=run.stage_dir(RL))
    return Progress("rl", position, Ledger()).task("step", total)
