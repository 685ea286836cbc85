"""A taskset of the package `verifiers` as a reward, for tasks of a single turn.

`verifiers` (Prime Intellect; its API `verifiers.v1`, from version 0.4) describes an environment as
a `Taskset`, which yields a `Task` a prompt. A task's reward methods read a `Trace`: the messages of
the conversation, of which the policy's completion is the last. Here a problem finds its task by
what the user says, so the task's own answer and data are scored, not the problem's gold. The
taskset's code runs in the process that trains, as every reward does, so its package must be listed
in `REASONING_LAB_TRUSTED`.

What needs more than the text of one turn is refused before anything runs: images, tools, a
container, and rewards that ask for the runtime of an agent. So are tasksets of the older API
(`SingleTurnEnv`, `Rubric`), which version 0.4 no longer has.
"""

import asyncio
import inspect
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from reasoning_lab.config.components import require_package
from reasoning_lab.config.targets import resolve
from reasoning_lab.rewards.options import check_options
from reasoning_lab.types import Message, Problem, UserError, messages_of


def _check_taskset(options: Mapping[str, Any], weight: float, key: str) -> None:
    require_package("verifiers", key, "verifiers")
    if find_spec("verifiers") is None:
        return
    try:
        load_tasks(options["taskset"], options["options"])
    except UserError as error:
        raise UserError(f"{key}.{error}") from error


@check_options(_check_taskset)
def taskset_reward(
    problem: Problem,
    completion: str,
    taskset: str,
    thought_prefix: str = "",
    options: Mapping[str, Any] | None = None,
) -> float | None:
    """The weighted sum of the rewards of the problem's task; None = the taskset has no such prompt.

    A thought that ended is the message's `reasoning_content`, and what follows is its `content`. Of
    a thought without an end there is no content.

    Args:
        problem, completion, thought_prefix: Of the rollout.
        taskset: Import path of a class that is a `verifiers.v1.Taskset`.
        options: Of the taskset's config.
    """
    task = _tasks_by_problem(taskset, _as_text(options)).get(problem.id)
    if task is None:
        return None
    trace = _trace(task, messages_of(problem.model_prompt), thought_prefix + completion)
    asyncio.run(task.score(trace))
    return float(trace.reward)


def load_tasks(taskset: str, options: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """The tasks of a taskset, each a `verifiers.v1.Task`, in their order; they are read once.

    Args:
        taskset, options: As in `taskset_reward`.

    Raises:
        UserError: It is no taskset, its tasks have more than one turn, or its options are wrong.
            The message begins with the key, `taskset` or `options`.
    """
    return _tasks(taskset, _as_text(options))


def task_messages(task: Any) -> list[Message]:
    """What a task's prompt says, of the text alone, behind its system prompt if it has one."""
    system = task.data.system_prompt
    return [*([Message("system", system)] if system else []), *_messages(task.data.prompt)]


def _as_text(options: Mapping[str, Any] | None) -> str:
    return json.dumps(dict(options or {}), sort_keys=True)


@lru_cache
def _tasks_by_problem(path: str, options: str) -> Mapping[str, Any]:
    """The first task of each prompt, by the id that a problem with this prompt has."""
    tasks: dict[str, Any] = {}
    for task in _tasks(path, options):
        *earlier, last = _messages(task.data.prompt)
        tasks.setdefault(
            Problem(last.content, "", "", "", earlier_messages=tuple(earlier)).id, task
        )
    return tasks


@lru_cache
def _tasks(path: str, options: str) -> tuple[Any, ...]:
    from verifiers import v1
    from verifiers.v1.utils.generic import concrete_type

    kind: Any = resolve(path, "taskset")
    if not (isinstance(kind, type) and issubclass(kind, v1.Taskset)):
        raise UserError(f"taskset: '{path}' is no verifiers.v1.Taskset; name a class that is one")
    config_type = concrete_type(kind, v1.TasksetConfig, origin=v1.Taskset) or v1.TasksetConfig
    try:
        taskset = kind(config_type(**json.loads(options)))
    except (TypeError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"options: '{path}' refuses them ({cause}); correct them") from error
    if not taskset.bounded:
        raise UserError(f"taskset: '{path}' never ends; name one with so many tasks")
    tasks = tuple(taskset)
    for task in tasks:
        if reason := _more_than_a_turn(task):
            raise UserError(
                f"taskset: task {task.data.idx} of '{path}' {reason}; only tasks that the "
                "text of one turn answers can be rewarded"
            )
    return tasks


def _more_than_a_turn(task: Any) -> str:
    """What a task needs beside the text of a completion; empty = nothing."""
    messages = _messages(task.data.prompt)
    if not messages or messages[-1].role != "user":
        return "has no prompt of the user"
    if _has_images(task.data.prompt):
        return "has a prompt that is not text alone"
    if task.NEEDS_CONTAINER:
        return "runs in a container"
    if task.toolsets(task.config):
        return "has tools"
    rewards = task.hooks("reward")
    for function in rewards:
        parameter = inspect.signature(function).parameters.get("runtime")
        if parameter is not None and parameter.default is inspect.Parameter.empty:
            return f"has a reward '{function.__name__}' that asks for a runtime"
    return "" if rewards or task.config.judges else "has no reward"


def _messages(prompt: Any) -> list[Message]:
    """A task's prompt as a conversation, of the text alone."""
    from verifiers.v1.types import content_text

    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    return [Message(str(turn.role), content_text(turn.content) or "") for turn in prompt]


def _has_images(prompt: Any) -> bool:
    turns = [] if prompt is None or isinstance(prompt, str) else prompt
    contents = [turn.content for turn in turns if isinstance(turn.content, list)]
    return any(part.type != "text" for content in contents for part in content)


def _trace(task: Any, prompt: Sequence[Message], text: str) -> Any:
    """A conversation of one turn as `verifiers` records it; `text` is the answer to `prompt`."""
    from verifiers import v1

    kinds = {"system": v1.SystemMessage, "user": v1.UserMessage, "assistant": v1.AssistantMessage}
    turns = [kinds[turn.role](content=turn.content) for turn in prompt]
    thought, ends, answer = text.partition("</think>")
    if not ends and "<think>" not in text:
        thought, answer = "", text
    reasoning = thought.replace("<think>", "", 1).strip() or None
    turns.append(v1.AssistantMessage(content=answer.strip(), reasoning_content=reasoning))
    return v1.Trace(
        task=v1.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
        agent=v1.AgentInfo(config=v1.AgentConfig()),
        nodes=[
            v1.MessageNode(
                parent=place - 1 if place else None, message=turn, sampled=place == len(turns) - 1
            )
            for place, turn in enumerate(turns)
        ],
        is_completed=True,
        ok=True,
    )
