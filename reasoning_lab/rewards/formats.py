r"""Reward of the form of a completion: one thought, then one \boxed answer."""

import re

from reasoning_lab.rewards.options import check_not_reversed, check_options

_NO_TAG = r"(?!</?think>)"
_ONE_THOUGHT = re.compile(
    rf"\s*<think>\s*{_NO_TAG}\S(?:{_NO_TAG}.)*</think>(?:{_NO_TAG}.)*", re.DOTALL
)
_BOX = "\\boxed{"


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
