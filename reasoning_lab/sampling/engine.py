"""Text generation behind one protocol: prompts in, completions with logprobs out.

`hf` and `vllm` run a model in this process, `openai` asks a server. They share the chat
template of the model's own tokenizer, so a prompt means the same to all of them.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reasoning_lab.types import Completion, Problem


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        temperature: Divides the logits; 0 = greedy.
        top_p: Keep the smallest set of tokens that holds this much probability; 1 = all.
        max_new_tokens: Where a completion is cut off.
        logprobs: Whether the tokens' are wanted, which vLLM ranks among the whole vocabulary;
            without, an engine may give them all the same.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    logprobs: bool = True


class Engine(Protocol):
    """Generates completions of what a user says."""

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order.

        A prompt's seed fixes its random numbers whatever else is in the call, so a
        completion does not depend on batching or on what was generated before; of a server
        that is asked for, and up to the server.

        Args:
            prompts: Each a user's turn, without chat markup.
            seeds: One a prompt, at least 0.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds: memory, processes, connections."""
        ...


def instructed(prompt: str, instruction: str) -> str:
    """The user's turn: the prompt, and the instruction on a line of its own if there is one."""
    return f"{prompt}\n{instruction}" if instruction else prompt


def rollout_seeds(problems: Sequence[Problem], samples: int, seed: str) -> list[int]:
    """`samples` seeds for each problem, one problem's side by side, from `seed` and its id.

    A problem that comes again has the next numbers, so no two of the seeds are of one sample.
    """
    drawn: Counter[str] = Counter()
    seeds = []
    for problem in problems:
        start = drawn[problem.id]
        drawn[problem.id] += samples
        seeds += [
            random.Random(f"{seed}/{problem.id}/{sample}").getrandbits(63)
            for sample in range(start, start + samples)
        ]
    return seeds
