"""What Hydra has to know before it composes: schemas of stages and components, and resolvers."""

import importlib
import pkgutil
from collections.abc import Iterator

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import reasoning_lab.stages
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.components import schema_node
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.targets import import_trusted, is_trusted
from reasoning_lab.graph.recipe import BASE
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import UserError

_STAGES = f"{reasoning_lab.stages.__name__}."


def register_schemas() -> None:
    """Give Hydra what the options refer to: schemas of stages and components, and resolvers."""
    OmegaConf.register_new_resolver("option_of", _option_of, replace=True)
    OmegaConf.register_new_resolver("domain_teacher", _domain_teacher, replace=True)
    OmegaConf.register_new_resolver("student", _student, replace=True)
    for package in ("data.sources", "data.teachers", "sampling"):
        importlib.import_module(f"reasoning_lab.{package}.config")
    store = ConfigStore.instance()
    store.store(group="schema", name="root", node=RootConfig)
    store.store(group="schema", name="benchmark", node=BenchmarkConfig)
    for name, stage in stage_classes().items():
        store.store(group="schema", name=name, node=schema_node(stage))


def _option_of(group: str, *, _root_: DictConfig) -> str:
    """The chosen option of `group`, for a defaults list: Hydra itself reads no dots in names."""
    return str(dict(_root_)[group])


def _domain_teacher(otherwise: str, *, _root_: DictConfig) -> str:
    """The teacher that the chosen option of `domain` names, for a defaults list, else `otherwise`.

    An option cannot override the teacher itself, as not every recipe has a stage with one. Hydra
    knows what it names as the choice of a group without files.
    """
    return str(dict(_root_).get("domain/distill_teacher@distill_teacher", otherwise))


def _student(key: str, engine_model: str | None = None, *, _root_: DictConfig) -> str | None:
    """What an engine needs to know of the checkpoint: its `model`, `dtype`, `revision`, ….

    An engine with another model, `engine_model`, gets no revision and no system prompt.
    """
    model: ModelConfig = OmegaConf.to_object(_root_.model)  # type: ignore[assignment]
    name = model.path or BASE
    values = {"model": name, "dtype": model.sampling_dtype}
    of_checkpoint = {"revision": model.revision, "system_prompt": model.system_prompt}
    is_checkpoint = engine_model in (None, name)
    return {**values, **(of_checkpoint if is_checkpoint else dict.fromkeys(of_checkpoint))}[key]


def stage_classes() -> dict[str, type[LabStage]]:
    """Every stage of the lab and of the packages that the user trusts, by its name.

    Raises:
        UserError: A class lacks `@dataclass`, or has the name of another.
    """
    import_trusted()
    for module in pkgutil.iter_modules(reasoning_lab.stages.__path__):
        if module.ispkg:
            importlib.import_module(f"reasoning_lab.stages.{module.name}.stage")
    classes: dict[str, type[LabStage]] = {}
    for cls in _subclasses(LabStage):
        path = f"{cls.__module__}.{cls.__qualname__}"
        if not hasattr(cls, "name") or not (path.startswith(_STAGES) or is_trusted(path)):
            continue
        if "__dataclass_fields__" not in vars(cls):
            raise UserError(f"{path}: a stage is a dataclass; write @dataclass above the class")
        if cls.name in classes:
            other = classes[cls.name]
            raise UserError(
                f"{path}: the stage {other.__module__}.{other.__qualname__} has the name "
                f"'{cls.name}' too; give one of them another"
            )
        classes[cls.name] = cls
    return classes


def _subclasses(cls: type[LabStage]) -> Iterator[type[LabStage]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
