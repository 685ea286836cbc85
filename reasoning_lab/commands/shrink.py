"""A run's settings made small: the same stages, code path and strategies in minutes on two cores.

Every length is cut by one factor, every count to a few, every training to a few steps. What it is
made of stays: optimizers, schedules, losses, filters, rewards, strategies, precision, adapters.
Keys are found by their names, as `GLOSSARY.md` has them (`_tokens`, `count`, `samples`, …), so that
a stage of the user's own is cut like the lab's.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.benchmark import ProtocolConfig
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.optimization import Length, OptimizationConfig
from reasoning_lab.config.problems import WHOLE_SPLIT
from reasoning_lab.config.publish import PublishConfig
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.config import HFEngineConfig, VLLMEngineConfig
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.types import UserError

# From a key, a value and what its field declares to the value that takes its place.
Change = Callable[[str, Any, Mapping[str, Any]], Any]

# Tokens of the longest length; no length is cut below the second number.
_LONGEST_TOKENS = 512
_LEAST_TOKENS = 192
# The most of what is counted, by the names that the keys give it.
_MOST = {
    "count": 24,
    "validation": 4,
    "validation_problems": 4,
    "samples": 2,
    "rollouts": 2,
    "group_size": 8,
    "screen_group_size": 4,
    "hard_rollouts": 4,
    "dynamic_sampling_rounds": 2,
    "shard_problems": 16,
    "validate_every_steps": 1,
    "every_steps": 1,
    "table_every_steps": 1,
    "log_every_steps": 1,
    "checkpoint_every_steps": 1,
}
_BENCHMARK_PROBLEMS = 4
# So few problems of a teacher that seldom slips might all be solved, and leave no pairs.
_SLIP_RATE = 0.2
_STEPS, _TOKENS, _DEVICES, _ROWS_OF_DEVICE = 2, 8192, 2, 2
# Prompts of a step that samples: a policy that is seldom right gives few of them a signal.
_PROMPTS_OF_DEVICE = 8
# Of a stage that makes a policy from nothing, which shall be right now and then.
_FIRST_STEPS, _FIRST_PROBLEMS, _FIRST_BATCH = 120, 400, 16


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Settings made small.

    Attributes:
        root: The settings.
        factor: By which every length was cut.
        notes: What is not as in a run, a sentence each.
    """

    root: RootConfig
    factor: float
    notes: Sequence[str]


def transformed(value: Any, change: Change, key: str = "", declared: Any = None) -> Any:
    """`value` with each of its parts replaced by what `change` makes of it, innermost first."""

    def part(name: str, content: Any, of_field: Any = None) -> Any:
        return transformed(content, change, f"{key}.{name}".lstrip("."), of_field)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {
            item.name: part(item.name, getattr(value, item.name), item.metadata)
            for item in dataclasses.fields(value)
        }
        value = replace(value, **parts)
    elif isinstance(value, Mapping):
        value = {name: part(str(name), content) for name, content in value.items()}
    elif isinstance(value, list):
        value = [transformed(item, change, key) for item in value]
    return change(key, value, declared or {})


def with_installed_engines(root: RootConfig) -> tuple[RootConfig, list[str]]:
    """The settings with transformers in place of vLLM where vLLM is not installed.

    Returns:
        The settings, and what was replaced.
    """
    if find_spec("vllm") is not None:
        return root, []
    replaced: dict[str, None] = {}

    def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
        if isinstance(value, VLLMEngineConfig):
            replaced[key] = None
            dtype = "bfloat16" if value.dtype in ("half", "float16", "bfloat16") else "float32"
            return HFEngineConfig(model=value.model, revision=value.revision, dtype=dtype)
        if value == "vllm" and "hf" in declared.get("choices", ()):
            replaced[key] = None
            return "hf"
        return value

    changed: RootConfig = transformed(root, change)
    notes = [
        f"{key}: vLLM is not installed, so transformers takes its place; "
        "pip install 'reasoning-lab[vllm]' to rehearse it"
        for key in replaced
    ]
    return changed, notes


def longest_tokens(root: RootConfig) -> int:
    """The largest of all lengths in tokens; 0 = there is none."""
    lengths = [0]

    def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
        if _is_length(key, value):
            lengths.append(value)
        return value

    for part in (root.stages, root.benchmarks):
        transformed(part, change)
    return max(lengths)


def shrunk(root: RootConfig, runs: str) -> Shrunk:
    """The settings made small; models and data are left to be replaced.

    Args:
        root: Those of the run.
        runs: Where the rehearsal's output goes.
    """
    factor = min(1.0, _LONGEST_TOKENS / max(1, longest_tokens(root)))
    world = min(root.hardware.world_size, _DEVICES)
    slips: list[str] = []

    def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
        name = key.rpartition(".")[2]
        if _is_length(key, value):
            return min(value, max(_LEAST_TOKENS, math.ceil(factor * value)))
        if name == "stream" and isinstance(value, list):
            return list(WHOLE_SPLIT)  # A few dozen prompts are too few for several stages.
        if value == "all" and name in _MOST:
            return _MOST[name]
        if name in _MOST and isinstance(value, int) and not isinstance(value, bool):
            return min(value, _MOST[name])
        if name == "unnoticed_slip_rate" and 0 < value < _SLIP_RATE:
            slips.append(key)
            return _SLIP_RATE
        return value

    stages = {
        name: _shrunk_stage(stage, change, root.hardware.world_size, world)
        for name, stage in root.stages.items()
    }
    benchmarks = {
        name: replace(
            transformed(replace(benchmark, data=None), change),
            data=benchmark.data,
            count=_at_most(benchmark.count, _BENCHMARK_PROBLEMS),
        )
        for name, benchmark in root.benchmarks.items()
    }
    hardware, notes = _shrunk_hardware(root, world)
    if partial := [name for name, stage in root.stages.items() if _has_stream(stage)]:
        notes.append(f"problems.stream: {', '.join(partial)} share the few prompts that are read")
    if slips:
        notes.append(f"unnoticed_slip_rate: {_SLIP_RATE}, so that a few dozen problems leave pairs")
    tracker = root.tracker
    if tracker.mode in ("auto", "online"):
        tracker = replace(tracker, mode="offline")
        notes.append("tracker.mode: offline, so that no server is written to")
    if root.publish.repository is not None:
        notes.append("publish.repository: nothing is pushed")
    small = replace(
        root,
        stages=stages,
        benchmarks=benchmarks,
        protocol=ProtocolConfig(),  # It is applied already.
        hardware=hardware,
        tracker=tracker,
        publish=PublishConfig(),
        paths=replace(root.paths, runs=runs),
    )
    return Shrunk(small, factor, notes)


def _has_stream(stage: LabStage) -> bool:
    """Whether the stage draws from a part of the training split."""
    return any(tuple(draw.stream) != WHOLE_SPLIT for draw in stage.problem_draws(""))


def _is_length(key: str, value: Any) -> bool:
    return key.endswith("_tokens") and isinstance(value, int) and not isinstance(value, bool)


def _at_most(value: Any, most: int) -> int:
    """`value`, or a word such as `all`, as a number that is at most `most`."""
    return min(value, most) if isinstance(value, int) else most


def _shrunk_stage(stage: LabStage, change: Change, world: int, small_world: int) -> LabStage:
    small: LabStage = transformed(stage, change)
    if not isinstance(small, TrainingStage) or not isinstance(stage, TrainingStage):
        return small
    most = _PROMPTS_OF_DEVICE if stage.samples_rollouts else _ROWS_OF_DEVICE
    rows_of_device = min(most, max(1, stage.optimization.batch_size // world))
    size = small_world * rows_of_device
    if Policy in stage.consumes:
        return replace(small, optimization=_shrunk_length(small.optimization, size))
    # A policy from nothing: so short that it learns the form of an answer and little more.
    first = replace(
        _shrunk_length(small.optimization, min(_FIRST_BATCH, stage.optimization.batch_size)),
        length=_first_length(stage.optimization),
    )
    problems = getattr(stage, "problems", None)
    more = {}
    if problems is not None and hasattr(problems, "count"):
        more = {"problems": replace(problems, count=_at_most(problems.count, _FIRST_PROBLEMS))}
    return replace(small, optimization=first, **more)


def _first_length(optimization: OptimizationConfig) -> str:
    steps = optimization.planned_steps
    return f"{_FIRST_STEPS if steps is None else min(steps, _FIRST_STEPS)} steps"


def _shrunk_length(optimization: OptimizationConfig, batch_size: int) -> OptimizationConfig:
    """A few steps, or one pass, in the unit that the length has."""
    length = Length.parse(optimization.length, "length")
    most = {"steps": _STEPS, "epochs": 1, "tokens": _TOKENS}[length.unit]
    return replace(
        optimization,
        length=str(Length(min(length.amount, most), length.unit)),
        batch_size=batch_size,
    )


def _shrunk_hardware(root: RootConfig, world: int) -> tuple[HardwareConfig, list[str]]:
    """This machine's processor with at most two processes, and what that leaves out."""
    hardware, notes = root.hardware, []
    if hardware.accelerator != "cpu":
        notes.append("hardware.accelerator: on the processor, by gloo; no GPU, its kernels or NCCL")
    if hardware.world_size > world:
        notes.append(f"hardware: {world} processes stand for {hardware.world_size} devices")
    for cluster in ("slurm", "ray"):
        if getattr(hardware, cluster) is not None:
            notes.append(f"hardware.{cluster}: left out; stages are made on this machine")
    if hardware.offload == "nvme":
        notes.append("hardware.offload: nvme is left out; no drives are used")
    sampling = hardware.sampling
    if sampling.tensor_parallel_size * sampling.data_parallel_size > 1 or sampling.sleep:
        notes.append("hardware.sampling: one copy of an engine on one device, which does not sleep")
    if sampling.rollout_urls:
        notes.append("hardware.sampling.rollout_urls: left out; the stage has an engine of its own")
    accumulates = hardware.micro_batch_size is not None and any(
        hardware.micro_batch_size < stage.optimization.batch_size // hardware.world_size
        for stage in root.stages.values()
        if isinstance(stage, TrainingStage)
    )
    offloads = hardware.offload == "cpu"
    small = replace(
        hardware,
        accelerator="cpu",
        gpu_model=None,
        devices=world,
        nodes=1,
        slurm=None,
        ray=None,
        offload="cpu" if offloads else "none",
        offload_path=None,
        micro_batch_size=1 if accumulates else None,
        generation_batch_size=min(hardware.generation_batch_size, 64),
        sampling=SamplingHardwareConfig(
            kv_cache_gb=1,
            cache=sampling.cache,
            url=sampling.url,
            requests_in_flight=sampling.requests_in_flight,
            requests_per_minute=sampling.requests_per_minute,
            request_retries=min(sampling.request_retries, 2),
            request_timeout_s=sampling.request_timeout_s,
        ),
        verifier_workers=min(hardware.verifier_workers, 2),
    )
    return small, notes


def with_models(
    root: RootConfig, twin_of: Callable[[EngineConfig, str], EngineConfig]
) -> RootConfig:
    """The settings with the checkpoint of every engine of a stage replaced by `twin_of` it."""

    def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
        if isinstance(value, EngineConfig) and value.loads_checkpoints:
            return twin_of(value, f"{key}.model")
        return value

    return replace(root, stages=transformed(root.stages, change, "stages"))


def require_folder(path: str, key: str) -> None:
    """Refuse a path of a model that names a folder of this machine which is not there."""
    is_path = path.startswith(("/", "./", "../", "~")) or path.count("/") > 1
    if is_path and not Path(path).is_dir():
        raise UserError(f"{key}: there is no folder '{path}'; check the path")
