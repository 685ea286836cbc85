"""The recipe as a graph: ordered stages in, linked nodes with fingerprints out.

A stage consumes kinds of artifact; the latest earlier stage that produces a kind gives it.
So the chain closes by itself when a stage is removed, swapped or repeated, and nothing here
knows any stage's name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.config.problems import ProblemDraw
from reasoning_lab.config.schema import StageConfig
from reasoning_lab.config.targets import user_code_hashes
from reasoning_lab.graph.store import fingerprint
from reasoning_lab.types import UserError

NO_ABLATION = "none"
# What the checkpoint that a recipe starts from is called, in `init_from` and in reports.
BASE = "base"


def variant_label(variant: str) -> str:
    """`none` -> the full recipe; `dpo` -> without dpo; swept values stand for themselves."""
    if variant == NO_ABLATION:
        return "the full recipe"
    return variant if "=" in variant else f"without {variant}"


@dataclass(frozen=True, slots=True)
class Node:
    """One stage of a recipe, with what decides its result.

    Attributes:
        name: Its name in the recipe.
        config: Its own config.
        inputs: Kind of artifact to the node that makes it.
        identity: Everything that went into the fingerprint.
        fingerprint: 16 hex digits.
    """

    name: str
    config: StageConfig
    inputs: Mapping[str, "Node"]
    identity: Mapping[str, Any]
    fingerprint: str

    @property
    def folder(self) -> str:
        """The stage's own name, whatever the recipe calls it: the store's folder.

        Ours are packages; a user's is called by its function.
        """
        package, *_, name = self.config.run.split(".")
        return self.config.run.split(".")[-3] if package == "reasoning_lab" else name

    @property
    def policy_name(self) -> str:
        """Of an evaluation: what the policy that it measures is called."""
        return self.name.rpartition("/")[0]

    def draws(self) -> Sequence[ProblemDraw]:
        """The problems that it draws."""
        return self.config.problem_draws(f"stages.{self.name}")

    def corpus_draw(self) -> ProblemDraw | None:
        """The problems of the corpus that reaches it; None = no corpus does."""
        maker = self.inputs.get("corpus")
        while maker is not None:
            for draw in maker.draws():
                if draw.teacher is not None:
                    return draw
            maker = maker.inputs.get("corpus")
        return None

    def trained_on(self) -> list["Node"]:
        """The ancestors whose problems reached this node, each once.

        A corpus made from a corpus stands for it: what curation took out was not trained on.
        """
        found: dict[str, Node] = {}
        waiting = [self]
        while waiting:
            node = waiting.pop()
            for kind, maker in node.inputs.items():
                if kind == node.config.produces and kind != "policy":
                    continue
                if maker.fingerprint not in found:
                    found[maker.fingerprint] = maker
                    waiting.append(maker)
        return list(found.values())


def ablated(
    stages: Mapping[str, StageConfig], ablate: str | Sequence[str]
) -> dict[str, StageConfig]:
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
    return {name: config for name, config in stages.items() if name not in names}


def ordered(stages: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """The stages in recipe order: as they come, but each that says `after` right behind that one.

    Raises:
        UserError: When `after` names no other stage, or two stages wait for each other.
    """
    followers: dict[str | None, list[str]] = {}
    for name, config in stages.items():
        followers.setdefault(config.after, []).append(name)
    order: dict[str, StageConfig] = {}
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
    stages: Mapping[str, StageConfig],
    groups: Mapping[str, Any],
    seed: int,
    has_base: bool,
    makers: Callable[[str], Sequence[str]],
) -> list[Node]:
    """Close the chain and fingerprint every stage.

    Args:
        stages: In recipe order.
        groups: Identity of the root groups that a stage may read.
        seed: The run's.
        has_base: True = a policy can start from `model.path`.
        makers: Names the shipped stages that produce a kind, for the error.

    Returns:
        The nodes that something needs, in order: a stage that makes data runs if a later
        one consumes it or if it is the last.

    Raises:
        UserError: When no earlier stage makes what a stage consumes.
    """
    nodes: dict[str, Node] = {}
    latest: dict[str, Node] = {}
    for name, config in stages.items():
        inputs = {
            kind: maker
            for kind in config.consumes
            if (maker := _maker(kind, name, config, nodes, latest, has_base, makers)) is not None
        }
        identity = _identity(config, inputs, groups, seed)
        node = Node(name, config, inputs, identity, fingerprint(identity))
        nodes[name] = latest[config.produces] = node
    return _needed(list(nodes.values()))


def _maker(
    kind: str,
    name: str,
    config: StageConfig,
    nodes: Mapping[str, Node],
    latest: Mapping[str, Node],
    has_base: bool,
    makers: Callable[[str], Sequence[str]],
) -> Node | None:
    """The node that gives `kind`; None for a policy that starts from the base checkpoint.

    `nodes` are the earlier ones by name, `latest` the last of them by the kind that it makes.
    """
    if kind == "policy" and config.init_from not in ("previous", BASE):
        if config.init_from not in nodes:
            raise UserError(
                f"stages.{name}.init_from: there is no earlier stage '{config.init_from}'; "
                f"choose previous, base or among {', '.join(nodes) or 'none'}"
            )
        return nodes[config.init_from]
    if kind in latest and not (kind == "policy" and config.init_from == BASE):
        return latest[kind]
    if kind == "policy" and has_base:
        return None
    remedy = " or ".join(f"'{maker}'" for maker in makers(kind)) or "no shipped stage"
    checkpoint = ", or set model.path to a checkpoint" if kind == "policy" else ""
    raise UserError(
        f"stages.{name}: it needs a {kind} and no earlier stage makes one; "
        f"put {remedy} before it{checkpoint}"
    )


def _needed(nodes: Sequence[Node]) -> list[Node]:
    needed = {node.name for node in nodes if node.config.produces == "policy"}
    needed |= {node.name for node in nodes[-1:]}
    for node in reversed(nodes):
        if node.name in needed:
            needed |= {maker.name for maker in node.inputs.values()}
    return [node for node in nodes if node.name in needed]


def with_evaluations(
    nodes: Sequence[Node],
    evaluations: Mapping[str, StageConfig],
    groups: Mapping[str, Any],
    seed: int,
    base: str | None,
) -> list[Node]:
    """The nodes with an evaluation on each benchmark of the base checkpoint and every policy.

    `base` is what the checkpoint is called; None = there is none.
    """

    def of(policy: Node | None) -> list[Node]:
        inputs = {} if policy is None else {"policy": policy}
        found = []
        for name, config in evaluations.items():
            identity = _identity(config, inputs, groups, seed)
            title = f"{base if policy is None else policy.name}/{name}"
            found.append(Node(title, config, inputs, identity, fingerprint(identity)))
        return found

    everything = [] if base is None else of(None)
    for node in nodes:
        everything.append(node)
        everything += of(node) if node.config.produces == "policy" else []
    return everything


def _identity(
    config: StageConfig, inputs: Mapping[str, Node], groups: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    identity = {
        "config": config.identity(),
        "inputs": {kind: node.fingerprint for kind, node in inputs.items()},
        "groups": {key: groups[key] for key in config.reads},
        "seed": seed,
    }
    code = user_code_hashes(identity)
    return {**identity, "code": code} if code else identity
