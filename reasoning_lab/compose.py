"""From Hydra's config to typed dataclasses and a linked recipe.

The last place that sees a DictConfig.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import reasoning_lab
import reasoning_lab.stages
from reasoning_lab.data.problems import ProblemSource
from reasoning_lab.evaluate.config import EvaluateConfig
from reasoning_lab.files import content_hash
from reasoning_lab.recipe import NO_ABLATION, Node, ablated, link, ordered, with_evaluations
from reasoning_lab.schema import RootConfig, StageConfig, check_values, identity_of
from reasoning_lab.targets import check_path, factory
from reasoning_lab.types import UserError

_PACKAGE = Path(reasoning_lab.__file__).parent
CONF = next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.is_dir())


@dataclass(frozen=True, slots=True)
class Recipe:
    """A composed run.

    Attributes:
        root: Every setting, typed.
        variant: What was left out, `none` for nothing.
        nodes: Stages and evaluations in the order in which they run.
        source: Where problems come from; what it reads is read once.
    """

    root: RootConfig
    variant: str
    nodes: list[Node]
    source: ProblemSource


def register_schemas() -> None:
    """Import every stage's schema, so that the shipped options find their types."""
    for module in pkgutil.iter_modules(reasoning_lab.stages.__path__):
        if module.ispkg:
            importlib.import_module(f"reasoning_lab.stages.{module.name}.config")


def compose(config: DictConfig) -> Recipe:
    """Type the config and link its stages.

    Raises:
        UserError: When the stages cannot be linked or a value is missing or impossible.
    """
    root: RootConfig = OmegaConf.to_object(config)  # type: ignore[assignment]
    check_values(root)
    for name, stage in root.stages.items():
        if not isinstance(stage, StageConfig):
            raise UserError(
                f"stages.{name}: a stage needs a schema; add it by its option, as in "
                f"+stage@stages.{name}=sft"
            )
        check_path(stage.run, f"stages.{name}.run")
        stage.check(f"stages.{name}", root.hardware)
    check_path(str(root.data.get("_target_")), "data._target_")
    source: ProblemSource = factory(root.data, "data")()
    groups = {
        "model": _model_identity(root),
        "data": _data_identity(root.data, source),
        "benchmarks": _benchmarks_identity(root),
    }
    kept = ablated(ordered(root.stages), root.ablate)
    nodes = link(kept, groups, root.seed, root.model.path is not None, makers)
    evaluations = {
        name: EvaluateConfig(name=name, benchmark=benchmark)
        for name, benchmark in root.benchmarks.items()
    }
    removed = [name for name in root.stages if name not in kept]
    return Recipe(
        root,
        "+".join(removed) or NO_ABLATION,
        with_evaluations(nodes, evaluations, groups, root.seed),
        source,
    )


def makers(kind: str) -> list[str]:
    """Names of the shipped stage options that produce `kind`."""
    options = sorted((CONF / "stage").glob("*.yaml"))
    return [
        path.stem for path in options if OmegaConf.select(OmegaConf.load(path), "produces") == kind
    ]


def _model_identity(root: RootConfig) -> Any:
    identity = identity_of(root.model)
    if root.model.path is not None and Path(root.model.path).is_dir():
        identity["path"] = content_hash(Path(root.model.path))
    return identity


def _benchmarks_identity(root: RootConfig) -> Any:
    """Which problems they hold; how a policy is sampled on them decides nothing before."""
    return {
        name: {
            key: value
            for key, value in identity_of(benchmark).items()
            if key not in ("samples", "sampling")
        }
        for name, benchmark in root.benchmarks.items()
    }


def _data_identity(data: dict[str, Any], source: ProblemSource) -> Any:
    """The source's options and its content; a local file counts by content, not by place."""
    return {"options": identity_of(_without_paths(data)), "content": source.content()}


def _without_paths(options: Any) -> Any:
    if not isinstance(options, dict):
        return options
    return {key: _without_paths(value) for key, value in options.items() if key != "path"}
