"""The protocol of all engines: from prompts to completions with logprobs.

`hf` and `vllm` run a model in this process, `vllm_client` and `openai` send requests to servers.
All of them use the chat template of the model's tokenizer, so a prompt means the same to each.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reasoning_lab.types import Completion, Message, Problem, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Called with each batch of completions that has ended.
OnProgress = Callable[[Sequence[Completion]], None]
# A completion before its first token; it stays so where its prompt leaves it no room.
NOTHING_YET = Completion([], "", truncated=True)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        temperature: Divides the logits; 0 = greedy.
        top_p: Sample from the smallest set of tokens with this much probability; 1 = all.
        max_new_tokens: Most tokens of a completion; a longer one is truncated.
        logprobs: Whether completions need the logprobs of their tokens, which cost vLLM a pass
            over the vocabulary. Without this, an engine may still return them.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    logprobs: bool = True


class Engine(Protocol):
    """Generates completions of a user's prompts."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion for each prompt, in order.

        A prompt's seed fixes its random numbers, so a completion depends neither on batching nor on
        earlier calls. A server receives the seed, and may ignore it.

        Args:
            prompts: A user's turn each, or a conversation that ends with one, without chat markup.
            sampling: How to sample, the same for all prompts.
            seeds: One seed for each prompt, at least 0.
        """
        ...

    def close(self) -> None:
        """Free the engine's memory, processes and connections."""
        ...


class InterruptibleEngine(Engine, Protocol):
    """An engine whose completions can stop before they end and go on later, by other weights."""

    def extend(
        self,
        prompts: Sequence[Prompt],
        started: Sequence[Completion],
        sampling: Sampling,
        seeds: Sequence[int],
        most_tokens: int,
    ) -> list[Completion]:
        """Continue each completion by at most `most_tokens`, after its prompt and its own tokens.

        The tokens so far are read again, so that nothing of earlier weights is left in a cache.

        Args:
            prompts: As in `generate`.
            started: The completion of each prompt so far; one without tokens begins.
            sampling: As in `generate`; `max_new_tokens` bounds whole completions.
            seeds: One for each prompt, the same in each call; later tokens get other random numbers
                than earlier ones.
            most_tokens: At least 1.

        Returns:
            Whole completions: earlier tokens and their logprobs as they were, then the new ones. A
            truncated one may be continued, unless it got fewer than `most_tokens` or has
            `max_new_tokens`.
        """
        ...


def with_instruction(prompt: Prompt, instruction: str) -> Prompt:
    """Return the prompt, with a nonempty instruction on a separate line of the last turn."""
    if not instruction:
        return prompt
    if isinstance(prompt, str):
        return f"{prompt}\n{instruction}"
    return (*prompt[:-1], Message("user", f"{prompt[-1].content}\n{instruction}"))


def completions_of(
    tokenizer: "PreTrainedTokenizerBase",
    outputs: Sequence[tuple[list[int], Sequence[float], bool]],
) -> list[Completion]:
    """The completion of each output: token ids, their logprobs, and whether it was truncated."""
    end = tokenizer.eos_token_id
    # The end token may be one that decoding does not leave out.
    without_end = [ids[:-1] if ids[-1:] == [end] else ids for ids, _, _ in outputs]
    texts = tokenizer.batch_decode(without_end, skip_special_tokens=True)
    return [
        Completion(ids, text, logprobs, truncated)
        for (ids, logprobs, truncated), text in zip(outputs, texts, strict=True)
    ]


def extended_outputs(
    started: Sequence[Completion], outputs: Sequence[tuple[list[int], Sequence[float], bool]]
) -> list[tuple[list[int], Sequence[float], bool]]:
    """Whole completions, as `completions_of` takes them; `outputs` have the new tokens alone."""
    whole: list[tuple[list[int], Sequence[float], bool]] = []
    for before, (ids, new_logprobs, truncated) in zip(started, outputs, strict=True):
        logprobs: Sequence[float] = [*before.logprobs, *new_logprobs]
        # An engine that gives none says so by an empty tuple.
        whole.append(([*before.token_ids, *ids], logprobs or (), truncated))
    return whole


def extended_seed(seed: int, tokens: int) -> int:
    """The seed after so many tokens, for an engine that cannot go on within a row of numbers."""
    return random.Random(f"{seed}/{tokens}").getrandbits(63) if tokens else seed


def rollout_seeds(
    problems: Sequence[Problem], samples: int | Sequence[int], seed: str
) -> list[list[int]]:
    """Return `samples` seeds for each problem, from `seed` and the problem's id.

    A problem that occurs again gets the next samples' seeds. `samples` may be one number, or one
    for each problem.
    """
    counts = [samples] * len(problems) if isinstance(samples, int) else samples
    samples_drawn: Counter[str] = Counter()
    seeds = []
    for problem, count in zip(problems, counts, strict=True):
        start = samples_drawn[problem.id]
        samples_drawn[problem.id] += count
        keys = (f"{seed}/{problem.id}/{sample}" for sample in range(start, start + count))
        seeds.append([random.Random(key).getrandbits(63) for key in keys])
    return seeds
