"""The thought of a completion: where it begins and ends, and whether it was cut off.

Every completion of the lab has at most one thought, `<think>` … `</think>`, and the answer behind
it. Texts of other authors bring several thoughts, none, half of one, or the mark that ends their
author's turn. Teachers use this module before they verify, the tokenizer before it trains.
"""

import re
from collections.abc import Sequence

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_MARKS = re.compile(f"{THINK_OPEN}|{THINK_CLOSE}")
# What ends a turn or a document in the families that write published datasets.
TURN_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_sentence|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "</s>",
)


def is_cut_off(text: str) -> bool:
    """Whether the last thought never ends; linear in the text's length."""
    return text.rfind(THINK_OPEN) > text.rfind(THINK_CLOSE)


def with_one_thought(text: str) -> str:
    """The completion with one opening, and one end unless it was cut off.

    Several thoughts become one, with what stands between them. A text that has only the end of a
    thought gets the opening, which its author's chat template had written.
    """
    if not _MARKS.search(text):
        return text
    if THINK_OPEN not in text:
        text = f"{THINK_OPEN}\n{text.lstrip()}"
    thought, end, answer = text.rpartition(THINK_CLOSE)
    if is_cut_off(text):
        thought, end, answer = text, "", ""
    return THINK_OPEN + _MARKS.sub("", thought.lstrip()) + end + answer


def without_turn_end(text: str, ends: Sequence[str] = TURN_ENDS) -> str:
    """The completion without the marks that end its author's turn, where it ends with such."""
    rest = text.rstrip()
    while end := next((end for end in ends if end and rest.endswith(end)), None):
        text = rest = rest.removesuffix(end).rstrip()
    return text
