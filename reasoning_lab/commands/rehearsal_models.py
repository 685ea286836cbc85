"""A small model in place of each checkpoint that a rehearsed run names."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.shrink import require_folder, transformed, with_models
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.fields import ALL
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.sources.problem_source import draw_benchmark, number_of
from reasoning_lab.models.twin_building import MadeTwin, make_twin, narrowed, teach
from reasoning_lab.sampling.engine import with_instruction
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Problem, Prompt, messages_of

# Prompts with golds that a twin learns.
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
        self._answers = list(_answers(recipe))
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
            path = self._twin(engine.model, revision, known_architecture(engine.model), key)
            dtype = getattr(engine, "dtype", "float32")
            return engine.for_policy(path, None, dtype)

        root = with_models(root, twin_of)
        engine = root.engine
        if engine is not None and engine.loads_checkpoints and self._model.path is not None:
            engine = replace(engine, model=self._model.path)
        return replace(root, model=self._model, engine=engine)

    def _twin(
        self, path: str, revision: str | None, architecture: Mapping[str, Any], key: str
    ) -> str:
        require_folder(path, key)
        folder = self._folder / path.strip("/.~").replace("/", "--")
        if folder.is_dir():
            return str(folder)
        texts = [
            "\n".join([*(turn.content for turn in messages_of(prompt)), gold])
            for prompt, gold in self._answers
        ] or [path]
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
        if self._answers:
            teach(folder, self._answers)
        return str(folder)


def known_architecture(path: str) -> dict[str, Any]:
    """What conf/model says of a checkpoint; of one that it does not name, a common family."""
    for file in sorted((CONF / "model").glob("*.yaml")):
        option = yaml.safe_load(file.read_text(encoding="utf-8"))
        if option.get("path") == path:
            return {**option["architecture"]}
    return {"model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096}


def _answers(recipe: Recipe) -> Iterator[tuple[Prompt, str]]:
    """Prompts and golds of problems that the nodes draw, with each instruction of the settings."""
    instructions = {"": None}

    def change(key: str, value: Any, declared: Mapping[str, Any]) -> Any:
        if key.endswith(".instruction") and isinstance(value, str):
            instructions[value] = None
        return value

    transformed(recipe.root.stages, change)
    transformed(recipe.root.benchmarks, change)
    distinct = {problem.id: problem for problem in _problems(recipe)}
    for problem in islice(distinct.values(), _TAUGHT_PROBLEMS):
        for instruction in instructions:
            yield with_instruction(problem.model_prompt, instruction), problem.gold


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
