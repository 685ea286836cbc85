"""Stages of three lines each and runs of them, for tests of the graph: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.recipe import Node, RunIdentity, link, with_evaluations
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.run import Outcome, Work
from reasoning_lab.graph.stage import NamedInput, Stage


class Model(Artifact):
    kind = "model"
    learned = True
    base_remedy = "name a model to start from"


class Text(Artifact):
    kind = "text"


class Choices(Artifact):
    kind = "choices"


class Score(Artifact):
    kind = "score"


@dataclass
class Grow(Stage):
    name, produces, reads = "grow", Model, ("model",)
    size: int = 1


@dataclass
class Write(Stage):
    name, produces, reads = "write", Text, ("data",)
    size: int = 1


@dataclass
class Clean(Stage):
    name, consumes, produces = "clean", (Text,), Text


@dataclass
class Learn(Stage):
    name, consumes, produces, reads = "learn", (Model, Text), Model, ("model",)
    size: int = 1


@dataclass
class Choose(Stage):
    name, consumes, produces, reads = "choose", (Model,), Choices, ("data",)


@dataclass
class Prefer(Stage):
    name, consumes, produces, reads = "prefer", (Model, Choices), Model, ("model",)
    size: int = 1


@dataclass
class Follow(Stage):
    """It learns from the model of a stage that it names."""

    name, consumes, produces = "follow", (Model,), Model
    guide: str = "base"

    def named_inputs(self) -> Mapping[str, NamedInput]:
        return {"guide": NamedInput("guide", self.guide, Model)}


@dataclass
class Measure(Stage):
    name, consumes, produces = "measure", (Model,), Score


KNOWN = (Grow, Write, Clean, Learn, Choose, Prefer)

RECIPE: dict[str, Stage] = {"base": Grow(), "teach": Write(), "clean": Clean(), "tune": Learn()}


class Log:
    """What an observer is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def started(self, node: Node) -> None:
        self.events.append(("started", node.name))

    def finished(self, node: Node, record: Record, reused: bool) -> None:
        self.events.append(("reused" if reused else "made", node.name, record.stage))


def nodes_of(stages: dict[str, Stage] = RECIPE, seed: int = 0) -> list[Node]:
    identity = RunIdentity({"model": {}, "data": {}}, seed)
    return with_evaluations(link(stages, identity, False), {"test": Measure()}, identity, None)


def execute(work: Work) -> Outcome:
    """Write the names of the inputs."""
    stages = sorted(record.stage for record in work.inputs.values())
    (work.out_dir / "inputs").write_text(" ".join(stages))
    return Outcome({"score": len(stages)}, {"rows": {"in": 1, "out": 1, "dropped": {}}}, {"x": "1"})


def never(work: Work) -> Outcome:
    """For a run that must reuse everything."""
    raise AssertionError(work.node.name)
