"""Stages and artifacts of three lines each, for tests of the graph: no torch, no language model."""

from dataclasses import dataclass

from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.stage import Stage


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
class Measure(Stage):
    name, consumes, produces = "measure", (Model,), Score


KNOWN = (Grow, Write, Clean, Learn, Choose, Prefer)
