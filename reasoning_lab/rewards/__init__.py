"""Verdicts to rewards: the functions that a config names as `reasoning_lab.rewards.NAME`.

Each is a plain function of what a rollout has; `weighted` adds them up.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reasoning_lab.rewards.ngrams import repeated_frac
from reasoning_lab.rewards.options import (
    check_not_reversed,
    check_options,
    check_token_limit,
    check_whole_number,
    finite_option,
)
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.extraction import extract_response
from reasoning_lab.verify.instructions import (
    InstructionError,
    followed,
    instructions_of,
    read_instructions,
)

_NO_TAG = r"(?!</?think>)"
_ONE_THOUGHT = re.compile(
    rf"\s*<think>\s*{_NO_TAG}\S(?:{_NO_TAG}.)*</think>(?:{_NO_TAG}.)*", re.DOTALL
)
_BOX = "\\boxed{"


def _check_correctness(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    values = {verdict.value: options[verdict.value] for verdict in Verdict}
    for name, value in values.items():
        if value is not None and finite_option(value) is None:
            raise UserError(f"{key}.{name}: {value!r} is not a finite number; give one, or null")
    correct = values.pop("correct")
    for name, value in values.items():
        if None not in (correct, value) and value >= correct:
            raise UserError(f"{key}.{name}: {value} is not below correct={correct}; lower it")


@check_options(_check_correctness)
def correctness(
    verdict: Verdict,
    correct: float = 1.0,
    wrong: float = -1.0,
    unparseable: float | None = -1.0,
    timeout: float | None = -1.0,
) -> float | None:
    """One number for each verdict (paper, step 4); None = such a rollout does not train."""
    return {
        Verdict.CORRECT: correct,
        Verdict.WRONG: wrong,
        Verdict.UNPARSEABLE: unparseable,
        Verdict.TIMEOUT: timeout,
    }[verdict]


@check_options(check_not_reversed)
def tests_passed(passed_frac: float | None) -> float:
    """The fraction of the problem's tests that the program passed; 0 where there are no tests."""
    return passed_frac or 0.0


@check_options(check_not_reversed)
def reasoning_format(completion: str, thought_prefix: str = "") -> float:
    r"""1 for one thought in `<think>` … `</think>` and one \boxed answer after it, else 0.

    An empty thought counts as none. Where the chat template opens the thought, the completion
    begins inside it.
    """
    text = thought_prefix + completion
    thought, _, answer = text.partition("</think>")
    has_one_box = answer.count(_BOX) == 1 and _BOX not in thought
    return float(bool(_ONE_THOUGHT.fullmatch(text)) and has_one_box)


# Either sign of the weight makes sense: it favours short completions, or long ones.
@check_options(check_token_limit)
def linear_length(completion_tokens: int, max_new_tokens: int) -> float:
    """From 0 for an empty completion down to -1 for the longest."""
    return -completion_tokens / max_new_tokens


def _check_cosine(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    for name in ("correct", "wrong"):
        value = options[name]
        is_pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
        if not is_pair or None in map(finite_option, value):
            raise UserError(
                f"{key}.{name}: {value!r} is not a pair of finite numbers; give the value at "
                "length 0 and the value at the limit"
            )
    value = options["truncated_reward"]
    if finite_option(value) is None:
        raise UserError(f"{key}.truncated_reward: {value!r} is not a finite number; give one")


@check_options(_check_cosine)
def cosine_length(
    verdict: Verdict,
    completion_tokens: int,
    max_new_tokens: int,
    correct: Sequence[float] = (2.0, 1.0),
    wrong: Sequence[float] = (-10.0, 0.0),
    truncated_reward: float = -10.0,
    truncated: bool = False,
) -> float:
    """Correct completions earn more when short, the others when long.

    Yeo et al. 2025 (arXiv:2502.03373), section 4: half a cosine from the first value, at length 0,
    to the second, at the limit. A truncated completion has a value of its own.
    """
    if truncated:
        return truncated_reward
    short, long = correct if verdict is Verdict.CORRECT else wrong
    cosine = (1 + math.cos(math.pi * completion_tokens / max_new_tokens)) / 2
    return long + (short - long) * cosine


def _check_overlong(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    check_whole_number(options, "soft_tokens", key, options["max_new_tokens"])


@check_options(_check_overlong)
def overlong(completion_tokens: int, max_new_tokens: int, soft_tokens: int) -> float:
    """0 until the last `soft_tokens` before the limit, over which it falls to -1.

    DAPO's soft overlong punishment (Yu et al. 2025, arXiv:2503.14476, equation 13).
    """
    excess_tokens = completion_tokens - (max_new_tokens - soft_tokens)
    return -min(max(excess_tokens / soft_tokens, 0.0), 1.0)


def _check_repetition(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    check_whole_number(options, "ngram", key)


@check_options(_check_repetition)
def repetition(completion: str, ngram: int = 8) -> float:
    """Minus the fraction of n-grams that occurred before; in (-1, 0].

    N-grams are of words, and of single characters where a script writes no spaces.
    """
    return -repeated_frac(completion, ngram) or 0.0


def _check_instructions(options: Mapping[str, Any], weight: float, key: str) -> None:
    check_not_reversed(options, weight, key)
    if options["criterion"] not in ("strict", "loose"):
        raise UserError(f"{key}.criterion: {options['criterion']!r}; choose strict or loose")
    if options["instructions"] is not None:
        try:
            read_instructions(options["instructions"])
        except InstructionError as error:
            raise UserError(f"{key}.instructions: {error}; correct the list") from error


@check_options(_check_instructions)
def instructions(
    completion: str,
    problem: Problem,
    instructions: Sequence[Mapping[str, Any]] | None = None,
    criterion: str = "strict",
    thought_prefix: str = "",
) -> float:
    """The fraction of the instructions on form that the response follows.

    Zhou et al. 2023 (arXiv:2311.07911), accuracy of instructions. The response is what stands
    behind the thought. The instructions are the problem's, or those of the config, in the form of
    `data.rows.instructions`. 0 where there are none.
    """
    outcomes = _followed(completion, problem, instructions, criterion, thought_prefix)
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


@check_options(_check_instructions)
def all_instructions(
    completion: str,
    problem: Problem,
    instructions: Sequence[Mapping[str, Any]] | None = None,
    criterion: str = "strict",
    thought_prefix: str = "",
) -> float:
    """1 where the response follows every instruction, else 0, also where there are none.

    The accuracy of prompts in Zhou et al. 2023, strict or loose; see `instructions`.
    """
    outcomes = _followed(completion, problem, instructions, criterion, thought_prefix)
    return float(bool(outcomes) and all(outcomes))


def _followed(
    completion: str,
    problem: Problem,
    listed: Sequence[Mapping[str, Any]] | None,
    criterion: str,
    thought_prefix: str,
) -> list[bool]:
    chosen = instructions_of(problem) if listed is None else read_instructions(listed)
    response = extract_response(thought_prefix + completion)
    return followed(chosen, response or "", criterion)
