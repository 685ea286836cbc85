"""A model as teacher: its completions are what `distill` verifies (paper, step 1)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.targets import check_path, factory
from reasoning_lab.data.teachers.answer_pattern import AnswerPattern
from reasoning_lab.data.teachers.teacher import SolutionWriter, boxed
from reasoning_lab.models.think_tags import has_open_thought, merge_thoughts, strip_turn_end
from reasoning_lab.sampling.engine import Engine, Sampling, instructed, rollout_seeds
from reasoning_lab.types import Completion, Problem, UserError
from reasoning_lab.verify.extraction import extract_answer

_KEY = "teacher.engine"
# What an engine's module imports only when it is opened, and the extra that brings it.
_PACKAGES = {"reasoning_lab.sampling.vllm": "vllm", "reasoning_lab.sampling.openai": "openai"}


class ModelTeacher:
    """Asks a model for worked solutions.

    Args:
        engine: `_target_` and options of the engine, `model` among them.
        instruction: Said after every problem, on a line of its own.
        opening: What the chat template has already written of the completion, such as
            `<think>` and a line break; it is put before the text. A text that has only the end of
            a thought gets `<think>` without it.
        temperature: Of the sampling; see `Sampling`.
        top_p: Likewise.
        max_new_tokens: Likewise.
        answer_pattern: For a model that boxes no answer: regular expression of one in prose, the
            answer its only group that matches. Where a completion that was not cut off has no
            box, the last match is boxed behind it; null = it is left as it is.

    Raises:
        UserError: The engine's package is missing, its model is a path with no folder, or the
            pattern is none.
    """

    def __init__(
        self,
        engine: Mapping[str, Any],
        instruction: str,
        opening: str,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        answer_pattern: str | None = None,
    ) -> None:
        check_engine(engine, _KEY)
        self.name = str(engine["model"])
        self._engine = engine
        self._instruction = instruction
        self._opening = opening
        self._sampling = Sampling(temperature, top_p, max_new_tokens, logprobs=False)
        self._answers = None if answer_pattern is None else AnswerPattern(answer_pattern)

    def refusal(self, problem: Problem) -> str | None:
        return None

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return []

    @contextmanager
    def open(self, hardware: HardwareConfig) -> Iterator[SolutionWriter]:
        made: Engine = factory(self._engine, _KEY)(hardware=hardware)
        with closing(made) as engine:
            yield partial(self._write, engine)

    def _write(
        self, engine: Engine, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        prompts = [
            instructed(problem.prompt, self._instruction)
            for problem in problems
            for _ in range(samples)
        ]
        seeds = rollout_seeds(problems, samples, str(seed))
        completions = [
            self._completion(written) for written in engine.generate(prompts, self._sampling, seeds)
        ]
        starts = range(0, len(completions), samples)
        return [completions[start : start + samples] for start in starts]

    def _completion(self, written: Completion) -> Completion:
        """What the student learns from: one thought, and a box unless it was cut off."""
        text = merge_thoughts(strip_turn_end(self._opening + written.text))
        truncated = written.truncated or has_open_thought(text)
        if self._answers is not None and not truncated and extract_answer(text) is None:
            answer = self._answers.last_answer(text)
            if answer is not None:
                text = f"{text.rstrip()}\n{boxed(answer.strip())}"
        return Completion([], text, truncated=truncated)


def check_engine(engine: Mapping[str, Any], key: str) -> None:
    """Find before anything runs what opening an engine would stumble over.

    Args:
        engine: `_target_` and options.
        key: The config key that holds them.

    Raises:
        UserError: The target may not be named, its package is missing, or its model is a path
            with no folder.
    """
    target, model = str(engine.get("_target_")), str(engine.get("model"))
    check_path(target, f"{key}._target_")
    package = _PACKAGES.get(target.rpartition(".")[0])
    if package and find_spec(package) is None:
        raise UserError(
            f"{key}: the package '{package}' is not installed; "
            f"run pip install 'reasoning-lab[{package}]'"
        )
    if model.startswith(("/", "./", "../", "~")) and not Path(model).is_dir():
        raise UserError(f"{key}.model: there is no folder '{model}'; check the path")
