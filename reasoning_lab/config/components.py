"""Parts of a config of which one implementation is chosen: sources, teachers, judges, engines.

The options of each implementation are a dataclass, which is the type of its part of the config. It
is registered here as `/schema/KIND`, and an option file names it in its defaults. `custom` of each
kind takes code of the user's own with free options. Nothing here imports torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from reasoning_lab.config.fields import FREE_KEYS
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.identity import Component
from reasoning_lab.config.model import check_system_prompt
from reasoning_lab.config.targets import check_arguments, factory
from reasoning_lab.types import UserError


@dataclass
class Implementation(Component):
    """Options of one implementation of a kind: of data, a teacher, a judge or an engine."""

    kind: ClassVar[str]

    def build(self) -> Any:
        """The implementation with these options; one of a teacher or a judge is cheap to make."""
        raise self.not_chosen()

    def not_chosen(self) -> UserError:
        """What to say of a config that names no implementation."""
        return UserError(
            f"{self.kind}: it does not say which implementation it is of; choose an option by "
            f"{self.kind}=NAME, or name a schema in the file's defaults: "
            f"[{{/schema/{self.kind}@_here_: NAME}}]"
        )


@dataclass
class SourceConfig(Implementation):
    """Where problems come from; it builds a `ProblemSource`."""

    kind = "data"

    def with_fractions(self, test_frac: float, validation_frac: float) -> Self:
        """The same source with these fractions held out, as a mixture asks of its parts."""
        fractions: dict[str, Any] = {"test_frac": test_frac, "validation_frac": validation_frac}
        if not fractions.keys() <= self.arguments().keys():
            raise UserError(
                f"data: {type(self).__name__} has no fields test_frac and validation_frac, which a "
                "mixture sets; add them"
            )
        return replace(self, **fractions)


@dataclass
class TeacherConfig(Implementation):
    """What writes worked solutions; it builds a `Teacher`."""

    kind = "teacher"

    def check(self, key: str) -> None:
        self.build()


@dataclass
class JudgeConfig(Implementation):
    """What is asked about answers that the verifier cannot read."""

    kind = "judge"

    def check(self, key: str) -> None:
        self.build()


@dataclass
class EngineConfig(Implementation):
    """What samples completions.

    Attributes:
        model: A Hugging Face folder, a hub id, or a model's name on a server.
        system_prompt: What the system says before each prompt that brings no system message; null =
            what the chat template writes by itself. What answers benchmarks has
            `model.system_prompt`.
    """

    kind = "engine"
    # Whether it can be given the checkpoint of a stage.
    loads_checkpoints: ClassVar[bool] = True
    # What decodes, by which a plan estimates time: hf or vllm, or a server elsewhere.
    runtime: ClassVar[str] = "server"

    model: str = MISSING
    system_prompt: str | None = field(default=None, kw_only=True, metadata={"when_set": True})

    def check(self, key: str) -> None:
        check_system_prompt(self.system_prompt, f"{key}.system_prompt")
        is_path = self.model.startswith(("/", "./", "../", "~"))
        if is_path and not Path(self.model).is_dir():
            raise UserError(f"{key}.model: there is no folder '{self.model}'; check the path")

    def arguments(self) -> dict[str, Any]:
        """The options by name; a system prompt only where there is one."""
        arguments = super().arguments()
        if self.system_prompt is None:
            del arguments["system_prompt"]
        return arguments

    def open(self, hardware: HardwareConfig) -> Any:
        """An `Engine` with these options."""
        raise self.not_chosen()

    def for_policy(self, model: str, revision: str | None, dtype: str) -> Self:
        """An engine with the same options for another model: a folder, or a hub id and commit.

        `dtype` is the precision of weights and arithmetic.
        """
        return replace(self, model=model)


@dataclass
class Targeted(Component):
    """What is named by its import path.

    Attributes:
        _target_: The import path.
        options: Further arguments, by name.
    """

    _target_: str = MISSING
    options: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)

    @property
    def target(self) -> str:
        """The import path."""
        return self._target_

    def arguments(self) -> dict[str, Any]:
        """`_target_` and every argument that is set, as `config.targets.factory` takes them."""
        arguments = super().arguments()
        options: dict[str, Any] = arguments.pop("options")
        return {key: value for key, value in arguments.items() if value is not None} | options


@dataclass
class Custom(Targeted):
    """A class of the user's own.

    Attributes:
        _target_: Its import path, in a package that REASONING_LAB_TRUSTED names.
        options: The arguments of its constructor.
    """

    kind: ClassVar[str]
    # Arguments of its constructor that only `build` knows.
    late_arguments: ClassVar[tuple[str, ...]] = ()

    def check(self, key: str) -> None:
        arguments = {**self.arguments(), **dict.fromkeys(self.late_arguments)}
        check_arguments(arguments.pop("_target_"), arguments, key)
        super().check(key)

    def build(self, **late_arguments: Any) -> Any:
        return factory(self.arguments(), self.kind)(**late_arguments)


@dataclass
class CustomSource(Custom, SourceConfig):
    """A source of the user's own; a mixture adds `test_frac` and `validation_frac` to `options`."""

    def with_fractions(self, test_frac: float, validation_frac: float) -> Self:
        fractions = {"test_frac": test_frac, "validation_frac": validation_frac}
        return replace(self, options={**self.options, **fractions})


@dataclass
class CustomTeacher(Custom, TeacherConfig):
    """A teacher of the user's own."""


@dataclass
class CustomJudge(Custom, JudgeConfig):
    """A judge of the user's own."""


@dataclass
class CustomEngine(Custom, EngineConfig):
    """An engine of the user's own, which is given `model` and `hardware` too."""

    late_arguments = ("hardware",)

    def open(self, hardware: HardwareConfig) -> Any:
        return self.build(hardware=hardware)


_missing_packages: ContextVar[list[str] | None] = ContextVar("missing_packages", default=None)


def require_package(name: str, key: str, extra: str, otherwise: str = "") -> None:
    """Raise UserError unless the package `name`, which `extra` of the lab brings, is installed."""
    if find_spec(name) is not None:
        return
    sentence = (
        f"{key}: the package '{name}' is not installed; run pip install "
        f"'reasoning-lab[{extra}]'{otherwise}"
    )
    missing = _missing_packages.get()
    if missing is None:
        raise UserError(sentence)
    missing.append(sentence)


@contextmanager
def missing_packages_noted() -> Iterator[list[str]]:
    """What only composes may lack packages; yields a sentence for each that a run would want."""
    missing: list[str] = []
    token = _missing_packages.set(missing)
    try:
        yield missing
    finally:
        _missing_packages.reset(token)


def register_component(kind: str, name: str, schema: type[Component]) -> None:
    """Make `schema` the type of options whose defaults have `{/schema/KIND@_here_: NAME}`."""
    ConfigStore.instance().store(group=f"schema/{kind}", name=name, node=schema_node(schema))


def schema_node(schema: type[Any]) -> DictConfig:
    """A structured config to whose free mappings Hydra adds keys without a `+`."""
    node: DictConfig = OmegaConf.structured(schema)
    _open_free_mappings(node, schema)
    return node


def _open_free_mappings(node: DictConfig, schema: type[Any]) -> None:
    for item in fields(schema):
        child = None if OmegaConf.is_missing(node, item.name) else node[item.name]
        if not isinstance(child, DictConfig):
            continue
        kind = OmegaConf.get_type(child)
        if item.metadata.get("free"):
            OmegaConf.set_struct(child, False)
        elif isinstance(kind, type) and is_dataclass(kind):
            _open_free_mappings(child, kind)


for _custom in (CustomSource, CustomTeacher, CustomJudge, CustomEngine):
    register_component(_custom.kind, "custom", _custom)
