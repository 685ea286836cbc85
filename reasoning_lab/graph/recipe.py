"""The recipe as a graph: ordered stages in, linked nodes with fingerprints out.

A stage consumes types of artifact; the latest earlier stage that produces a type gives it.
So the chain closes by itself when a stage is removed, swapped or repeated, and nothing here
knows any stage's name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.record import fingerprint
from reasoning_lab.graph.stage import Stage
from reasoning_lab.types import UserError

NO_ABLATION = "none"
# What the artifact that a recipe starts from is called, in `init_from` and in reports.
BASE = "base"
# The number alone names the folder of an arm.
_EXPERIMENT = re.compile(r"(?<![\w.])experiment=(?:(\d{3})_\w+(?=/))?")


def variant_label(variant: str) -> str:
    """`none` -> the full recipe; `dpo` -> without dpo; swept values stand for themselves.

    An experiment needs no key: `experiment=011_how_far_ahead/ahead_4` -> 011/ahead_4.
    """
    if variant == NO_ABLATION:
        return "the full recipe"
    return _EXPERIMENT.sub(r"\1", variant) if "=" in variant else f"without {variant}"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What of a run enters the identity of its stages.

    Attributes:
        groups: Identity of each root config group that a stage may read.
        seed: The run's.
        code_of: Digests of the user's own code that an identity names, by import path.
    """

    groups: Mapping[str, Any]
    seed: int = 0
    code_of: Callable[[Any], Mapping[str, str]] = lambda identity: {}

    def of(self, stage: Stage, inputs: Mapping[str, "Node"]) -> dict[str, Any]:
        """All that decides the result of `stage` on these inputs."""
        identity = {
            "stage": stage.name,
            "version": stage.version,
            "config": stage.identity(),
            "inputs": {kind: node.fingerprint for kind, node in inputs.items()},
            "groups": {key: self.groups[key] for key in stage.groups_read()},
            "seed": self.seed,
        }
        classes = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(stage).__mro__]
        code = self.code_of([identity, classes])
        return {**identity, "code": dict(code)} if code else identity

    def node(self, name: str, stage: Stage, inputs: Mapping[str, "Node"]) -> "Node":
        """`stage` on these inputs, with its fingerprint."""
        identity = self.of(stage, inputs)
        return Node(name, stage, inputs, identity, fingerprint(identity))


@dataclass(frozen=True, slots=True)
class Node:
    """One stage of a recipe, with what decides its result.

    Attributes:
        name: Its name in the recipe.
        stage: The stage and its knobs.
        inputs: Kind of artifact, or name of a further input, to the node that makes it.
        identity: Everything that went into the fingerprint.
        fingerprint: 16 hex digits.
    """

    name: str
    stage: Stage
    inputs: Mapping[str, "Node"]
    identity: Mapping[str, Any]
    fingerprint: str

    @property
    def produces(self) -> type[Artifact]:
        """Type of the artifact that it makes."""
        return self.stage.produces


def ablated(stages: Mapping[str, Stage], ablate: str | Sequence[str]) -> dict[str, Stage]:
    """The stages without those that `ablate` names.

    Raises:
        UserError: For a name that the recipe does not have.
    """
    names = [ablate] if isinstance(ablate, str) else list(ablate)
    names = [name for name in names if name != NO_ABLATION]
    for name in names:
        if name not in stages:
            raise UserError(
                f"ablate: the recipe has no stage '{name}'; choose {NO_ABLATION} or among "
                f"{', '.join(stages)}"
            )
    return {name: stage for name, stage in stages.items() if name not in names}


def ordered(stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """The stages in recipe order: as they come, but each that says `after` right behind that one.

    Raises:
        UserError: When `after` names no other stage, or two stages wait for each other.
    """
    followers: dict[str | None, list[str]] = {}
    for name, stage in stages.items():
        followers.setdefault(stage.after, []).append(name)
    order: dict[str, Stage] = {}
    # The next one is the last; what follows it goes before all that waits.
    waiting = followers.get(None, [])[::-1]
    while waiting:
        name = waiting.pop()
        order[name] = stages[name]
        waiting += reversed(followers.get(name, []))
    for name in stages:
        if name not in order:
            choices = ", ".join(other for other in stages if other != name)
            raise UserError(
                f"stages.{name}.after: '{stages[name].after}' is no stage that it can follow; "
                f"choose null or among {choices}"
            )
    return order


def link(
    stages: Mapping[str, Stage],
    run: RunIdentity,
    has_base: bool,
    known: Iterable[type[Stage]] = (),
) -> list[Node]:
    """Close the chain and fingerprint every stage.

    Args:
        stages: In recipe order.
        run: What of the run is part of every identity.
        has_base: True = a learned artifact exists to start from.
        known: Stages that a recipe could have, which an error names.

    Returns:
        The nodes that something needs, in order: a stage that makes data runs if a later
        one consumes it or if it is the last.

    Raises:
        UserError: When no earlier stage makes what a stage consumes.
    """
    nodes: dict[str, Node] = {}
    latest: dict[str, Node] = {}
    for name, stage in stages.items():
        inputs: dict[str, Node] = {}
        for wanted in stage.consumes:
            maker = latest.get(wanted.kind)
            if wanted.learned and stage.init_from != "previous":
                maker = _start(name, stage.init_from, nodes)
            if maker is not None:
                inputs[wanted.kind] = maker
            elif not (wanted.learned and has_base):
                raise UserError(_no_maker(wanted, name, known))
        for argument, further in stage.named_inputs().items():
            makers = {key: node for key, node in nodes.items() if node.produces is further.type}
            inputs[argument] = _maker(f"stages.{name}.{further.key}", further.stage, makers)
        nodes[name] = latest[stage.produces.kind] = run.node(name, stage, inputs)
    return _needed(list(nodes.values()))


def _start(name: str, init_from: str, earlier: Mapping[str, Node]) -> Node | None:
    """The earlier node that stage `name` starts from; None = the base."""
    if init_from == BASE:
        return None
    return _maker(f"stages.{name}.init_from", init_from, earlier, f"previous, {BASE} or ")


def _maker(key: str, maker: str, earlier: Mapping[str, Node], words: str = "") -> Node:
    """The earlier node `maker`, which `key` names; `words` could stand there too."""
    if maker not in earlier:
        raise UserError(
            f"{key}: there is no earlier stage '{maker}'; "
            f"choose {words}among {', '.join(earlier) or 'none'}"
        )
    return earlier[maker]


def _no_maker(wanted: type[Artifact], name: str, known: Iterable[type[Stage]]) -> str:
    makers = sorted(f"'{stage.name}'" for stage in known if stage.produces is wanted)
    remedy = " or ".join(makers) or "a stage that makes one"
    base = f", or {wanted.base_remedy}" if wanted.base_remedy else ""
    return (
        f"stages.{name}: it needs a {wanted.kind} and no earlier stage makes one; "
        f"put {remedy} before it{base}"
    )


def _needed(nodes: Sequence[Node]) -> list[Node]:
    needed = {node.name for node in nodes if node.produces.learned}
    needed |= {node.name for node in nodes[-1:]}
    for node in reversed(nodes):
        if node.name in needed:
            needed |= {maker.name for maker in node.inputs.values()}
    return [node for node in nodes if node.name in needed]


def with_evaluations(
    nodes: Sequence[Node], evaluations: Mapping[str, Stage], run: RunIdentity, base: str | None
) -> list[Node]:
    """The nodes, with each evaluation of the base and of every learned artifact behind it.

    `base` is what the base is called; None = there is none.
    """

    def of(node: Node | None) -> list[Node]:
        inputs = {} if node is None else {node.produces.kind: node}
        title = base if node is None else node.name
        return [run.node(f"{title}/{name}", stage, inputs) for name, stage in evaluations.items()]

    everything = [] if base is None else of(None)
    for node in nodes:
        everything.append(node)
        everything += of(node) if node.produces.learned else []
    return everything
