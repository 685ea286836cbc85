"""Parts of a config of which one implementation is chosen: sources, teachers, judges, engines.

The options of each implementation are a dataclass, which is the type of its part of the config. It
is registered here as `/schema/KIND`, and an option file names it in its defaults. `custom` of each
kind takes code of the user's own with free options. Nothing here imports torch.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from reasoning_lab.config.fields import FREE_KEYS
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.identity import Component
from reasoning_lab.config.targets import check_arguments, factory
from reasoning_lab.types import UserError


@dataclass
class SourceConfig(Component):
    """Where problems come from."""

    def build(self) -> Any:
        """The `ProblemSource` with these options."""
        raise _not_chosen("data")

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
class TeacherConfig(Component):
    """What writes worked solutions."""

    def check(self, key: str) -> None:
        self.build()

    def build(self) -> Any:
        """The `Teacher` with these options; it must be cheap to make."""
        raise _not_chosen("teacher")


@dataclass
class JudgeConfig(Component):
    """What is asked about answers that the verifier cannot read."""

    def check(self, key: str) -> None:
        self.build()

    def build(self) -> Any:
        """The judge with these options; it must be cheap to make."""
        raise _not_chosen("judge")


@dataclass
class EngineConfig(Component):
    """What samples completions.

    Attributes:
        model: A Hugging Face folder, a hub id, or a model's name on a server.
    """

    # Whether it can be given the checkpoint of a stage.
    loads_checkpoints: ClassVar[bool] = True

    model: str = MISSING

    def check(self, key: str) -> None:
        is_path = self.model.startswith(("/", "./", "../", "~"))
        if is_path and not Path(self.model).is_dir():
            raise UserError(f"{key}.model: there is no folder '{self.model}'; check the path")

    def open(self, hardware: HardwareConfig) -> Any:
        """An `Engine` with these options."""
        raise _not_chosen("engine")

    def for_policy(self, model: str, revision: str | None, dtype: str) -> Self:
        """An engine with the same options for another model.

        Args:
            model: A Hugging Face folder or hub id.
            revision: The hub commit; None for a folder.
            dtype: Precision of weights and arithmetic.
        """
        return replace(self, model=model)


@dataclass
class CustomSource(SourceConfig):
    """A source of the user's own.

    Attributes:
        _target_: Import path of its class, in a package that REASONING_LAB_TRUSTED names.
        options: The arguments of its constructor; in a mixture, `test_frac` and `validation_frac`
            are added.
    """

    _target_: str = MISSING
    options: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)

    def check(self, key: str) -> None:
        check_arguments(self._target_, self.options, key)

    def build(self) -> Any:
        return factory({"_target_": self._target_, **self.options}, "data")()

    def with_fractions(self, test_frac: float, validation_frac: float) -> Self:
        fractions = {"test_frac": test_frac, "validation_frac": validation_frac}
        return replace(self, options={**self.options, **fractions})


@dataclass
class CustomTeacher(TeacherConfig):
    """A teacher of the user's own.

    Attributes:
        _target_: Import path of its class, in a package that REASONING_LAB_TRUSTED names.
        options: The arguments of its constructor.
    """

    _target_: str = MISSING
    options: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)

    def check(self, key: str) -> None:
        check_arguments(self._target_, self.options, key)
        self.build()

    def build(self) -> Any:
        return factory({"_target_": self._target_, **self.options}, "teacher")()


@dataclass
class CustomJudge(JudgeConfig):
    """A judge of the user's own.

    Attributes:
        _target_: Import path of its class, in a package that REASONING_LAB_TRUSTED names.
        options: The arguments of its constructor.
    """

    _target_: str = MISSING
    options: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)

    def check(self, key: str) -> None:
        check_arguments(self._target_, self.options, key)
        self.build()

    def build(self) -> Any:
        return factory({"_target_": self._target_, **self.options}, "judge")()


@dataclass
class CustomEngine(EngineConfig):
    """An engine of the user's own.

    Attributes:
        model: Given to it as `model`.
        _target_: Import path of its class, in a package that REASONING_LAB_TRUSTED names.
        options: Its arguments beside `model` and `hardware`.
    """

    _target_: str = MISSING
    options: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)

    def check(self, key: str) -> None:
        super().check(key)
        arguments = {**self.options, "model": self.model, "hardware": None}
        check_arguments(self._target_, arguments, key)

    def open(self, hardware: HardwareConfig) -> Any:
        arguments = {**self.options, "model": self.model, "hardware": hardware}
        return factory({"_target_": self._target_, **arguments}, "engine")()


def register_component(kind: str, name: str, schema: type[Component]) -> None:
    """Make `schema` the type of options whose defaults have `{/schema/KIND@_here_: NAME}`.

    Args:
        kind: data, teacher, judge or engine.
        name: What option files call it.
        schema: Its fields are the options.
    """
    node: DictConfig = OmegaConf.structured(schema)
    _open_free_mappings(node, schema)
    ConfigStore.instance().store(group=f"schema/{kind}", name=name, node=node)


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


def _not_chosen(kind: str) -> UserError:
    return UserError(
        f"{kind}: it does not say which implementation it is of; choose an option by "
        f"{kind}=NAME, or name a schema in the file's defaults: [{{/schema/{kind}@_here_: NAME}}]"
    )


for _kind, _custom in (
    ("data", CustomSource),
    ("teacher", CustomTeacher),
    ("judge", CustomJudge),
    ("engine", CustomEngine),
):
    register_component(_kind, "custom", _custom)
