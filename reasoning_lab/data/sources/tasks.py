"""Rows of a taskset of the package `verifiers`, one a task.

`reasoning_lab.rewards.environment` reads the tasks and grades by them, so that one taskset gives
both the problems and their reward.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from reasoning_lab.data.sources.readers import Read, ReadRow
from reasoning_lab.rewards.environment import load_tasks, task_messages
from reasoning_lab.types import UserError


def task_rows(
    taskset: str, options: Mapping[str, Any], content: str, used: Collection[str]
) -> Read:
    """Yield the fields of each task's data; its `prompt` is a conversation.

    Args:
        taskset, options: As in `TasksetConfig`.
        content: The hash of the tasks.
        used: Every field is read.

    Raises:
        UserError: As `tasks_hash`.
    """
    for task in load_tasks(taskset, options):
        row = task.data.model_dump(mode="json", exclude={"system_prompt"})
        row["prompt"] = [
            {"role": turn.role, "content": turn.content} for turn in task_messages(task)
        ]
        name = f"task {task.data.idx}"
        yield ReadRow(row, f"{taskset}, {name}", name)


def tasks_hash(taskset: str, options: Mapping[str, Any]) -> str:
    """The hash of the data of all tasks.

    Raises:
        UserError: As `load_tasks`, with the keys of `data`; or there is no task.
    """
    try:
        tasks = load_tasks(taskset, options)
    except UserError as error:
        raise UserError(f"data.{error}") from error
    if not tasks:
        raise UserError(f"data.taskset: '{taskset}' has no task; choose other options")
    return hashlib.sha256("".join(task.hash for task in tasks).encode()).hexdigest()
