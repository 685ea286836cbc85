"""A stage: a dataclass whose fields are its knobs, so that it is its own config schema.

What is a fact of the code, and no knob, is a class attribute, which no config can override. A stage
that is composed, planned and fingerprinted is never run, so only `run` may import what is heavy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from reasoning_lab.config.fields import placement
from reasoning_lab.config.identity import identity_of
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.types import Sequences

Metrics = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """How much a stage reads and writes, as far as its knobs say it.

    Attributes:
        rows: That it trains on or samples, by which its time is estimated; None = unknown.
        trained: What it trains on at most; None = nothing, or its data decides how long.
        written: What it writes at most; None = nothing.
        graded: What each frozen policy that it names reads at most; None = nothing.
        engine: What writes it: hf or vllm, or a server elsewhere.
    """

    rows: int | None = None
    trained: Sequences | None = None
    written: Sequences | None = None
    graded: Sequences | None = None
    engine: str = "hf"


@dataclass(frozen=True, slots=True)
class NamedInput:
    """An artifact of one stage that another asks for by that stage's name.

    Attributes:
        key: The knob that has the name, below those of the stage that asks.
        stage: The name.
        type: The artifact's type.
    """

    key: str
    stage: str
    type: type[Artifact]


@dataclass
class Stage:
    """One step of a recipe; a subclass adds its knobs as fields and implements `run`.

    Attributes:
        name: The name of its schema and of its folder in the store.
        consumes: Types of the artifacts that it needs from earlier stages.
        produces: Type of the artifact that it makes.
        reads: Root config groups that its result depends on, whatever its knobs are.
        version: Raised when the algorithm changes, so that old artifacts are not reused.
        init_from: Where its learned input comes from: `previous`, `base` or the name of a stage.
        after: The stage that it follows in the recipe; null = it stays at its own place, which
            for one that is added is the end.
    """

    name: ClassVar[str]
    consumes: ClassVar[tuple[type[Artifact], ...]] = ()
    produces: ClassVar[type[Artifact]]
    reads: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1

    init_from: str = "previous"
    after: str | None = placement(None)

    def identity(self) -> dict[str, Any]:
        """Those knobs that decide the result, as plain data."""
        identity: dict[str, Any] = identity_of(self)
        return identity

    def groups_read(self) -> tuple[str, ...]:
        """Root config groups that its result depends on, with the knobs that it has."""
        return self.reads

    def named_inputs(self) -> Mapping[str, NamedInput]:
        """Further inputs, beside those that it consumes, by their names as arguments of `run`."""
        return {}

    def workload(self) -> Workload:
        """How much it will read and write."""
        return Workload()

    def output_rows(self, input_rows: Mapping[str, int | None]) -> int | None:
        """Rows of its artifact at most; None = unknown, or the artifact has none.

        `input_rows` are those of its inputs at most, by kind of artifact.
        """
        return None

    def run(self, *context: Any, **inputs: Any) -> Metrics:
        """Fill the context's `out_dir`; called as `run(context, kind=artifact, …)`.

        Returns:
            What is worth reading without opening the files.
        """
        raise NotImplementedError(f"stage '{self.name}' has no run()")
