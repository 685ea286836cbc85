"""A small model in place of each checkpoint that a rehearsed run names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.prices import known_model
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.shrink import require_folder, transformed, with_models
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.fields import ALL
from reasoning_lab.config.frozen_policy import FrozenPolicyConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.sources.problem_source import draw_benchmark, number_of
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.twin_building import MadeTwin, make_twin, narrowed, teach
from reasoning_lab.sampling.engine import with_instruction
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Problem, Prompt, messages_of
from reasoning_lab.verify.extraction import BOXED, answer_form, boxed

# Of a checkpoint that no option names.
_COMMON_FAMILY = {"model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096}
# Problems whose solutions a twin learns.
_TAUGHT_PROBLEMS = 64


class Twins:
    """A small model in place of each checkpoint that the settings name.

    Args:
        folder: Where they are written.
        model: The run's.
        online: Whether the hub may be asked.
        recipe: On a few rows, which the twins learn.
    """

    def __init__(self, folder: Path, model: ModelConfig, online: bool, recipe: Recipe) -> None:
        self._folder, self._online = folder, online
        self._taught = list(_solutions(recipe))
        self.notes: list[str] = []
        self._twins: dict[str, MadeTwin] = {}
        # Whether the student's own tokenizer was there.
        self.has_tokenizer = False
        # By whose tokenizer lengths are counted.
        self.tokenizer_model = model
        if model.path is None:
            self._model = replace(model, architecture=narrowed(model.architecture))
            self.notes.append("model.architecture: two layers, and narrow ones if it is wide")
            return
        path = self._twin(str(model.path), model.revision, model.architecture, "model.path")
        self._model = replace(model, path=path, revision=None)
        self.has_tokenizer = self._twins[path].has_tokenizer
        if self.has_tokenizer:
            self.tokenizer_model = self._model

    def into(self, root: RootConfig) -> RootConfig:
        """The settings with twins in place of checkpoints."""

        def twin_of(engine: EngineConfig, key: str) -> EngineConfig:
            revision = getattr(engine, "revision", None)
            path = self._twin(engine.model, revision, None, key)
            dtype = getattr(engine, "dtype", "float32")
            return engine.for_policy(path, None, dtype)

        def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
            if isinstance(value, FrozenPolicyConfig) and value.path is not None:
                return self._grader(value, value.path, f"{key}.path", first_policy)
            return value

        first_policy = next((k for k, one in root.stages.items() if one.produces is Policy), None)
        root = with_models(root, twin_of)
        root = replace(root, stages=transformed(root.stages, change, "stages"))
        engine = root.engine
        if engine is not None and engine.loads_checkpoints and self._model.path is not None:
            engine = replace(engine, model=self._model.path)
        return replace(root, model=self._model, engine=engine)

    def _grader(
        self, grader: FrozenPolicyConfig, path: str, key: str, first_policy: str | None
    ) -> FrozenPolicyConfig:
        """A small policy with the student's tokenizer: the twin of `path`, if that is known to."""
        if self._model.path is None:
            self._note(
                f"{key}: what {first_policy} makes stands for '{path}', as the tokenizer is new"
            )
            return replace(grader, stage=first_policy, path=None, revision=None)
        twin = self._twin(path, grader.revision, None, key)
        if not (self.has_tokenizer and self._twins[twin].has_tokenizer):
            self._note(
                f"{key}: the student's twin stands for '{path}'; whether they have one tokenizer "
                "was not seen, as it is not on this machine"
            )
            twin = self._model.path
        return replace(grader, path=twin, revision=None)

    def _note(self, sentence: str) -> None:
        """Settings are made small twice, and told of once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _twin(
        self, path: str, revision: str | None, architecture: Mapping[str, Any] | None, key: str
    ) -> str:
        """The folder of the twin; None = its architecture is in no option of this run."""
        require_folder(path, key)
        folder = self._folder / path.strip("/.~").replace("/", "--")
        if folder.is_dir():
            return str(folder)
        texts = [
            "\n".join([*(turn.content for turn in messages_of(prompt)), solution])
            for prompt, solution in self._taught
        ] or [path]
        if architecture is None:
            architecture = known_model(path).architecture or _COMMON_FAMILY
        twin = make_twin(path, revision, architecture, folder, texts, key, self._online)
        self.notes.append(
            f"{key}: a random model of the family of '{path}', two layers of 64 channels, which "
            "has learned a few answers"
        )
        if not twin.has_config:
            self.notes.append(f"{key}: its architecture is what the options say of it")
        self._twins[str(folder)] = twin
        if not twin.has_tokenizer:
            self.notes.append(
                f"{key}: its tokenizer and its chat template are stand-ins, as '{path}' is neither "
                "on this machine nor to be reached; doctor looks at the real ones"
            )
        if self._taught:
            teach(folder, self._taught)
        return str(folder)


def _solutions(recipe: Recipe) -> Iterator[tuple[Prompt, str]]:
    """Prompts and solutions of problems that the nodes draw, with each of their instructions."""
    instructions = {"": None}

    def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
        if key.endswith(".instruction") and isinstance(value, str):
            instructions[value] = None
        return value

    transformed(recipe.root.stages, change)
    transformed(recipe.root.benchmarks, change)
    distinct = {problem.id: problem for problem in _problems(recipe)}
    for problem in islice(distinct.values(), _TAUGHT_PROBLEMS):
        for solution in _solution(problem):
            for instruction in instructions:
                yield with_instruction(problem.model_prompt, instruction), solution


def _solution(problem: Problem) -> Sequence[str]:
    """A short thought with the gold behind it, in a box; else a recorded solution if there is one.

    A gold that belongs into no box, such as a list of instructions, is no answer.
    """
    if answer_form(problem.checker) is BOXED:
        return [f"<think>\nSo it is {problem.gold}.\n</think>\n{boxed(problem.gold)}"]
    recorded: list[str] = problem.metadata.get("solutions") or []
    return recorded[:1]


def _problems(recipe: Recipe) -> Iterator[Problem]:
    for node in recipe.nodes:
        assert isinstance(node.stage, LabStage)
        for draw in node.stage.problem_draws(f"stages.{node.name}"):
            if draw.benchmark is not None:
                source = recipe.benchmark_sources.get(draw.benchmark, recipe.source)
                yield from draw_benchmark(source, recipe.root.benchmarks[draw.benchmark])
            else:
                count = number_of(
                    recipe.source, draw.split, draw.levels, draw.count or ALL, draw.key
                )
                drawn = recipe.source.problems(draw.split, draw.levels, count, recipe.root.seed)
                yield from islice(drawn, _TAUGHT_PROBLEMS)
