"""Rollouts on disk: parquet, one row a rollout, read through `datasets`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset

from reasoning_lab.types import Completion, Problem, Rollout, Verdict

PROMPT_IDS = "prompt_ids.txt"


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Write one row a rollout, its problem and its verdict included."""
    Dataset.from_list([_row(rollout) for rollout in rollouts]).to_parquet(path)


def read_rollouts(path: Path) -> list[Rollout]:
    """Read what `write_rollouts` wrote, in order."""
    return [_rollout(row) for row in Dataset(pq.read_table(path))]


def write_prompt_ids(folder: Path, problems: Iterable[Problem]) -> None:
    """Record which prompts a stage trained on, for the held-out check."""
    ids = sorted({problem.id for problem in problems})
    (folder / PROMPT_IDS).write_text("\n".join(ids) + "\n")


def read_prompt_ids(folder: Path) -> set[str]:
    """The ids that `write_prompt_ids` left in `folder`; none where a stage drew no problem."""
    path = folder / PROMPT_IDS
    return set(path.read_text().split()) if path.exists() else set()


def _row(rollout: Rollout) -> dict[str, Any]:
    problem, completion = rollout.problem, rollout.completion
    return {
        "prompt": problem.prompt,
        "gold": problem.gold,
        "checker": problem.checker,
        "family": problem.family,
        "level": problem.level,
        "metadata": json.dumps(problem.metadata),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "truncated": completion.truncated,
        "answer": rollout.answer,
        "verdict": str(rollout.verdict),
        "author": rollout.author,
        "policy_version": rollout.policy_version,
    }


def _rollout(row: dict[str, Any]) -> Rollout:
    problem = Problem(
        prompt=row["prompt"],
        gold=row["gold"],
        checker=row["checker"],
        family=row["family"],
        level=row["level"],
        metadata=json.loads(row["metadata"]),
    )
    completion = Completion(row["token_ids"], row["text"], truncated=row["truncated"])
    return Rollout(
        problem=problem,
        completion=completion,
        answer=row["answer"],
        verdict=Verdict(row["verdict"]),
        author=row["author"],
        policy_version=row["policy_version"],
    )
