"""Text generation behind one protocol: prompts in, completions with logprobs out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reasoning_lab.types import Completion


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        temperature: Divides the logits; 0 = greedy.
        top_p: Keep the smallest set of tokens that holds this much probability; 1 = all.
        max_new_tokens: Where a completion is cut off.
    """

    temperature: float
    top_p: float
    max_new_tokens: int


class Engine(Protocol):
    """Generates completions for tokenized prompts."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order.

        A prompt's seed fixes its random numbers whatever else is in the call, so a
        completion does not depend on batching or on what was generated before.
        """
        ...
