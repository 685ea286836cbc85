"""From Hydra's config to typed dataclasses and a linked recipe.

The last place that sees a DictConfig.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reasoning_lab.commands.problem_counts import apply_protocol, resolve_counts
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.schemas import stage_classes
from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.components import SourceConfig, require_package
from reasoning_lab.config.fields import check_values
from reasoning_lab.config.frozen_policy import check_checkpoint
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.hydra_errors import no_stage
from reasoning_lab.config.identity import as_plain, identity_of
from reasoning_lab.config.model import check_system_prompt
from reasoning_lab.config.targets import (
    user_code_hashes,
)
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.data.sources.unreadable import errors_under
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.graph.recipe import (
    BASE,
    NO_ABLATION,
    Node,
    RunIdentity,
    ablated,
    link,
    ordered,
    with_evaluations,
)
from reasoning_lab.graph.record import RECORD_FILE
from reasoning_lab.graph.stat_cache import folder_hash
from reasoning_lab.tracking.trackers import check_trackers
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import UserError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A composed run.

    Attributes:
        root: Every setting, typed.
        variant: What was left out, `none` for nothing.
        nodes: Stages and evaluations in the order in which they run.
        source: Where problems come from; what it reads is read once.
        benchmark_sources: The same of each benchmark that has a source of its own.
        overrides: What was composed, as the tracker and error messages show it.
    """

    root: RootConfig
    variant: str
    nodes: list[Node]
    source: ProblemSource
    benchmark_sources: Mapping[str, ProblemSource]
    overrides: Sequence[str] = ()

    @property
    def needs(self) -> set[str]:
        """Fingerprints of its nodes, and of stored artifacts that its settings name by path."""
        store = (Path(self.root.paths.runs) / "store").resolve()
        paths = [Path(text).resolve() for text in _texts(as_plain(self.root)) if _is_path(text)]
        places = [path.relative_to(store).parts for path in paths if path.is_relative_to(store)]
        named = {place[1] for place in places if len(place) > 1}
        return {node.fingerprint for node in self.nodes} | named


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _is_path(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # A prompt may be too long for a name, or hold a null byte.
        return False


def compose(config: DictConfig) -> Recipe:
    """Type the config and link its stages.

    Raises:
        UserError: When the stages cannot be linked or a value is missing or impossible.
    """
    return linked(typed(config))


def typed(config: DictConfig) -> RootConfig:
    """The config as dataclasses, with each benchmark under the protocol.

    Raises:
        UserError: A key is unknown, or a value is missing or out of bounds.
    """
    if config.engine is not None and OmegaConf.is_missing(config.engine, "model"):
        config.engine.model = config.model.path or BASE
    root: RootConfig = OmegaConf.to_object(config)  # type: ignore[assignment]
    check_values(root)
    root.benchmarks = {
        name: root.protocol.applied(benchmark) for name, benchmark in root.benchmarks.items()
    }
    return root


def linked(root: RootConfig) -> Recipe:
    """The recipe of typed settings.

    Raises:
        UserError: When the stages cannot be linked or a value is impossible.
    """
    _check(root)
    for name, stage in root.stages.items():
        if isinstance(stage, TrainingStage):
            debugged = root.debug.applied(stage.optimization)
            root.stages[name] = replace(stage, optimization=debugged)
    source = _source(root.data, "data")
    sources = {
        name: _source(benchmark.data, f"benchmarks.{name}.data")
        for name, benchmark in root.benchmarks.items()
        if benchmark.data is not None
    }
    resolve_counts(root, source, sources)
    apply_protocol(root)
    groups = {
        "model": _model_identity(root),
        "data": _data_identity(root.data, source),
        "benchmarks": {
            name: _problems_identity(benchmark, sources.get(name, source))
            for name, benchmark in root.benchmarks.items()
        },
    }
    remaining = ablated(ordered(root.stages), root.ablate)
    has_base = root.model.path is not None
    run = RunIdentity(groups, root.seed, user_code_hashes)
    nodes = link(remaining, run, has_base, stage_classes().values())
    evaluations = {
        name: EvaluateStage(
            benchmark_name=name,
            benchmark=benchmark,
            engine=root.engine,
            data_identity=groups["benchmarks"][name].get("data", groups["data"]),
        )
        for name, benchmark in root.benchmarks.items()
    }
    # What is evaluated is merged.
    merged = {k: v for k, v in groups["model"].items() if k != "adapter"}
    run = replace(run, groups={**groups, "model": merged})
    nodes = with_evaluations(nodes, evaluations, run, _base_name(root))
    if not nodes:
        raise UserError(
            "stages: there is no stage and no checkpoint to evaluate; choose a recipe, or set "
            "model.path"
        )
    removed = [name for name in root.stages if name not in remaining]
    return Recipe(root, "+".join(removed) or NO_ABLATION, nodes, source, sources)


def _base_name(root: RootConfig) -> str | None:
    """What the checkpoint is called: `base` below the stages that it starts, else by its name."""
    path = root.model.path
    if path is None or root.stages:
        return None if path is None else BASE
    parts = Path(path).parts
    # A policy of a store lies in a folder named by its fingerprint, below its stage's.
    stored = len(parts) > 1 and (Path(path) / RECORD_FILE).is_file()
    return f"{parts[-2]}-{parts[-1][:8]}" if stored else Path(path).name or BASE


def _check(root: RootConfig) -> None:
    check_hardware(root.hardware)
    check_system_prompt(root.model.system_prompt, "model.system_prompt")
    _check_engine(root)
    _check_precision(root)
    _check_adapter(root)
    _check_checkpoint(root)
    check_trackers(root.tracker)
    for name, stage in root.stages.items():
        # A file's `stages: {NAME: {}}` composes: OmegaConf makes it the base of all stages.
        if not hasattr(stage, "name"):
            raise UserError(no_stage(f"stages.{name}"))
        stage.check(f"stages.{name}", root.hardware)


def check_hardware(hardware: HardwareConfig) -> None:
    """Check that placement options fit each other.

    Raises:
        UserError: Two of them do not.
    """
    strategy = hardware.strategy
    for key, count in (("devices", hardware.devices), ("nodes", hardware.nodes)):
        if count > 1 and strategy == "single":
            raise UserError(
                f"hardware.{key}={count}: strategy=single uses one; set hardware.strategy to ddp, "
                "fsdp or deepspeed1, 2 or 3"
            )
    if hardware.nodes > 1 and not hardware.on_cluster:
        raise UserError(
            f"hardware.nodes={hardware.nodes}: other machines are reached through SLURM or Ray; "
            "choose hardware=slurm or ray, or leave nodes out"
        )
    if hardware.slurm is not None and hardware.ray is not None:
        raise UserError(
            "hardware.slurm and hardware.ray: a stage is made on one of them; leave one out"
        )
    if hardware.offload != "none" and not strategy.startswith("deepspeed"):
        raise UserError(
            f"hardware.offload={hardware.offload}: strategy={strategy} has no offloading; set "
            "hardware.strategy to deepspeed1, 2 or 3, or leave offload out"
        )
    if hardware.offload == "nvme" and strategy != "deepspeed3":
        raise UserError(
            f"hardware.offload=nvme: strategy={strategy} cannot offload to drives; set "
            "hardware.strategy=deepspeed3, or hardware.offload=cpu"
        )
    if (hardware.offload == "nvme") != (hardware.offload_path is not None):
        raise UserError(
            f"hardware.offload_path={hardware.offload_path}: it is the folder on the drives of "
            f"offload=nvme, and offload is {hardware.offload}; give both, or neither"
        )
    if strategy.startswith("deepspeed"):
        key = f"hardware.strategy={strategy}"
        require_package("deepspeed", key, "deepspeed", ", or choose fsdp")


def _check_engine(root: RootConfig) -> None:
    if root.hardware.sampling.sleep and root.hardware.accelerator == "cpu":
        raise UserError(
            "hardware.sampling.sleep: vLLM has no sleep mode on a CPU; leave it out, or set "
            "hardware.accelerator to gpu"
        )
    if root.engine is None:
        return
    if root.engine.system_prompt not in (None, root.model.system_prompt):
        raise UserError(
            "engine.system_prompt: what answers benchmarks is the policy; set model.system_prompt, "
            "which holds for its training too"
        )
    root.engine = replace(root.engine, system_prompt=root.model.system_prompt)
    root.engine.check("engine")
    if root.stages and not root.engine.loads_checkpoints:
        raise UserError(
            "engine: a server does not have the policies of stages; choose engine=hf or vllm, "
            "or evaluate the server's own model with reasoning-lab evaluate"
        )


def _check_precision(root: RootConfig) -> None:
    if root.model.dtype != "mixed":
        return
    if root.hardware.strategy.startswith("deepspeed"):
        raise UserError(
            f"model.dtype=mixed: strategy={root.hardware.strategy} keeps float32 weights beside "
            "bfloat16 ones by itself; set model.dtype=bfloat16, or hardware.strategy to single, "
            "ddp or fsdp"
        )
    if root.model.adapter is not None:
        raise UserError(
            "model.dtype=mixed: an adapter learns in float32 whatever it is put into; set "
            "model.dtype=bfloat16, or leave the adapter out"
        )


def _check_adapter(root: RootConfig) -> None:
    adapter = root.model.adapter
    if adapter is None:
        return
    for package in ("peft", *(["bitsandbytes"] if adapter.kind == "qlora" else [])):
        key = f"model.adapter.kind={adapter.kind}"
        require_package(package, key, "lora", ", or leave the adapter out")
    if root.hardware.strategy not in ("single", "ddp"):
        raise UserError(
            f"model.adapter: strategy={root.hardware.strategy} divides weights that an adapter "
            "leaves frozen, which is not done; set hardware.strategy to single or ddp"
        )
    for name in adapter.target_modules or []:
        if "embed" in name or "lm_head" in name:
            raise UserError(
                f"model.adapter.target_modules: '{name}' is an embedding, and these don't learn "
                "with an adapter; name linear layers of the blocks"
            )


def _check_checkpoint(root: RootConfig) -> None:
    """Of a local one; a server's model and a hub's have no files here."""
    is_served = root.engine is not None and not root.engine.loads_checkpoints
    if root.model.path is not None and not is_served:
        check_checkpoint(root.model.path, "model.path")


def _model_identity(root: RootConfig) -> Any:
    identity = identity_of(root.model)
    if root.model.path is not None and Path(root.model.path).is_dir():
        identity["path"] = folder_hash(Path(root.model.path))
    return identity


def _problems_identity(benchmark: BenchmarkConfig, source: ProblemSource) -> Any:
    """Which problems it holds; how a policy is sampled on them decides nothing before."""
    identity = {key: getattr(benchmark, key) for key in ("split", "levels", "count", "seed")}
    if benchmark.data is not None:
        identity["data"] = _data_identity(benchmark.data, source)
    return identity


def _source(options: SourceConfig, key: str) -> ProblemSource:
    options.check(key)
    with errors_under(key):
        source: ProblemSource = options.build()
    return source


def _data_identity(options: SourceConfig, source: ProblemSource) -> Any:
    """The source's options and its content; a local file counts by content, not by place."""

    def without_paths(plain: Any) -> Any:
        if not isinstance(plain, dict):
            return plain
        return {key: without_paths(value) for key, value in plain.items() if key != "path"}

    return {"options": without_paths(identity_of(options)), "content": source.content()}
