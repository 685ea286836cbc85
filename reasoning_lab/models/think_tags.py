"""The think tags of a completion: where its thought begins and ends, or whether it was cut off.

Every completion of the lab has at most one thought, `<think>` … `</think>`, followed by the answer.
A text of another author may have several thoughts, none, half of one, or an end-of-turn token.
Teachers normalize such texts before verification, and the tokenizer before training.
"""

import re
from collections.abc import Sequence

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_TAGS = re.compile(f"{THINK_OPEN}|{THINK_CLOSE}")
# End-of-turn and end-of-document tokens of the families that write published datasets.
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


def has_open_thought(text: str) -> bool:
    """Whether the last thought has no end; linear in the text's length."""
    return text.rfind(THINK_OPEN) > text.rfind(THINK_CLOSE)


def merge_thoughts(text: str) -> str:
    """The completion with one opening tag, and one closing tag unless it was cut off.

    Several thoughts become one, together with the text between them. A text with only a closing
    tag gets an opening tag, because its author's chat template wrote it.
    """
    if not _TAGS.search(text):
        return text
    if THINK_OPEN not in text:
        text = f"{THINK_OPEN}\n{text.lstrip()}"
    thought, end, answer = text.rpartition(THINK_CLOSE)
    if has_open_thought(text):
        thought, end, answer = text, "", ""
    return THINK_OPEN + _TAGS.sub("", thought.lstrip()) + end + answer


def strip_turn_end(text: str, ends: Sequence[str] = TURN_ENDS) -> str:
    """The completion without trailing end-of-turn tokens."""
    rest = text.rstrip()
    while end := next((end for end in ends if end and rest.endswith(end)), None):
        text = rest = rest.removesuffix(end).rstrip()
    return text
