"""A model as teacher: `distill` verifies its completions (paper, step 1)."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.teacher import AnswerPattern, SolutionWriter, boxed
from reasoning_lab.models.think_tags import has_open_thought, merge_thoughts, strip_turn_end
from reasoning_lab.sampling.engine import Engine, Sampling, rollout_seeds, with_instruction
from reasoning_lab.types import Completion, Problem
from reasoning_lab.verify.extraction import extract_answer

if TYPE_CHECKING:
    from reasoning_lab.sampling.config import ModelTeacherConfig


class ModelTeacher:
    """Asks a model for worked solutions.

    Args:
        config: Its options.

    Raises:
        UserError: The pattern is no regular expression of an answer.
    """

    def __init__(self, config: "ModelTeacherConfig") -> None:
        self.name = config.engine.model
        self._config = config
        self._sampling = Sampling(
            config.temperature, config.top_p, config.max_new_tokens, logprobs=False
        )
        pattern = config.answer_pattern
        self._answers = None if pattern is None else AnswerPattern(pattern)

    def refusal(self, problem: Problem) -> str | None:
        return None

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return []

    @contextmanager
    def open(self, hardware: HardwareConfig) -> Iterator[SolutionWriter]:
        opened: Engine = self._config.engine.open(hardware)
        with closing(opened) as engine:
            yield partial(self._write, engine)

    def _write(
        self, engine: Engine, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        prompts = [
            with_instruction(problem.prompt, self._config.instruction)
            for problem in problems
            for _ in range(samples)
        ]
        seeds = rollout_seeds(problems, samples, str(seed))
        completions = [
            self._to_training_text(completion)
            for completion in engine.generate(prompts, self._sampling, seeds)
        ]
        starts = range(0, len(completions), samples)
        return [completions[start : start + samples] for start in starts]

    def _to_training_text(self, completion: Completion) -> Completion:
        """Return the completion with one thought, and with a box unless it was truncated."""
        text = merge_thoughts(strip_turn_end(self._config.opening + completion.text))
        truncated = completion.truncated or has_open_thought(text)
        if self._answers is not None and not truncated and extract_answer(text) is None:
            answer = self._answers.last_answer(text)
            if answer is not None:
                text = f"{text.rstrip()}\n{boxed(answer.strip())}"
        return Completion([], text, truncated=truncated)
