"""Checks of the chat template: what stands around a question, and before an answer."""

import re
from datetime import datetime

from reasoning_lab.doctor.check import Check, Result, ok, wrong
from reasoning_lab.doctor.model_under_test import QUESTION, ModelUnderTest
from reasoning_lab.doctor.tokenizer_checks import LOADS
from reasoning_lab.models.markup import plain_tokens
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN, has_open_thought
from reasoning_lab.models.tokenizer import prompt_texts, render_chats, tokenize
from reasoning_lab.types import Completion

# No template changes these.
_MARK = "\ue006?\ue006"
_ANSWER = "\ue007!\ue007"
_CONTENT = "Let $x_1 \\le \\frac{3}{4}$ & y < 2:\n\n  Is é = 水?\n" + "How many? " * 80 + "End"
_BEGINNINGS = ("it is 7", "the answer is 7", "So it is 7", "\\boxed{7}")
_OPENED = re.compile(r"[<\[|]+(?:\w+:)?(?:think|thinking|thought|reasoning)[>\]|]+", re.IGNORECASE)

_DATE_FORM = re.compile(r"strftime_now\(\s*['\"](.+?)['\"]")


def _after_question(model: ModelUnderTest) -> str:
    """What the template writes behind a question, where the model is to answer."""
    return prompt_texts(model.tokenizer, [_MARK])[0].rpartition(_MARK)[2]


def _no_generation_prompt(model: ModelUnderTest) -> Result:
    chat = [{"role": "user", "content": _MARK}, {"role": "assistant", "content": _ANSWER}]
    (text,) = render_chats(model.tokenizer, [chat], add_generation_prompt=False)
    header = _before_thought(text.partition(_ANSWER)[0].rpartition(_MARK)[2])
    generation_prompt = _before_thought(_after_question(model))
    if header != generation_prompt:
        return wrong(
            f"model.path: before an answer the chat template writes {header!r}, and where one is "
            f"to be generated {generation_prompt!r}; write the same with add_generation_prompt"
        )
    return ok()


def _before_thought(text: str) -> str:
    return _OPENED.split(text)[0].strip()


def _thought_closed(model: ModelUnderTest) -> Result:
    after = _after_question(model)
    if THINK_CLOSE in after and not has_open_thought(after):
        return wrong(
            f"model.path: the chat template closes the thought before the model answers "
            f"({after!r}); write one that lets the model think, as with enable_thinking=true"
        )
    return ok()


def _thought_opened_twice(model: ModelUnderTest) -> Result:
    solution = f"{THINK_OPEN}\nIt is 3 + 4.\n{THINK_CLOSE}\nIt is \\boxed{{7}}"
    (example,) = tokenize(model.tokenizer, [QUESTION], [Completion([], solution)])
    after = _after_question(model)
    (completion,) = model.tokenizer.batch_decode([list(example.completion_ids)])
    opened = _OPENED.findall(after + completion)
    if len(opened) > 1:
        return wrong(
            f"model.path: the chat template opens a thought with {opened[0]!r}, and a "
            f"solution opens {opened[1]!r} inside; have it write {THINK_OPEN}, or nothing"
        )
    return ok(
        "the template opens the thought, and no completion does"
        if opened and has_open_thought(after)
        else ""
    )


def _content_changed(model: ModelUnderTest) -> Result:
    (text,) = prompt_texts(model.tokenizer, [_CONTENT])
    if _CONTENT not in text:
        return wrong(
            "model.path: the chat template changes a question's text, so it is another question; "
            "have it write message['content'] as it is"
        )
    return ok()


def _date(model: ModelUnderTest) -> Result:
    (text,) = prompt_texts(model.tokenizer, [QUESTION])
    for form in _DATE_FORM.findall(str(model.tokenizer.chat_template)):
        if (date := datetime.now().strftime(form)) in text:
            return wrong(
                f"model.path: the chat template writes today's date ({date}), so the same problem "
                "is another prompt tomorrow; write a fixed date in place of strftime_now"
            )
    return ok()


def _ends_inside_token(model: ModelUnderTest) -> Result:
    (prompt,) = prompt_texts(model.tokenizer, [QUESTION])
    prompt_ids, *whole = plain_tokens(
        model.tokenizer, [prompt, *(prompt + beginning for beginning in _BEGINNINGS)]
    )
    for beginning, ids in zip(_BEGINNINGS, whole, strict=True):
        if ids[: len(prompt_ids)] != prompt_ids:
            return wrong(
                f"model.path: the end of a prompt ({prompt[-12:]!r}) and the beginning of an "
                f"answer ({beginning!r}) are one token, which a prompt alone cuts; end what "
                "add_generation_prompt writes without the space"
            )
    return ok()


TEMPLATE_CHECKS = (
    Check(
        "no-generation-prompt",
        "A prompt lacks what stands before an answer, so the model writes it, or a user's turn.",
        "https://github.com/unslothai/unsloth/issues/1330",
        _no_generation_prompt,
        LOADS,
    ),
    Check(
        "thought-closed-by-template",
        "The template writes an empty thought, so the model answers without thinking.",
        "https://github.com/huggingface/transformers/issues/37949",
        _thought_closed,
        LOADS,
    ),
    Check(
        "thought-opened-twice",
        "The template opens a thought, and so does what the model is trained on.",
        "https://github.com/huggingface/trl/issues/6966",
        _thought_opened_twice,
        (*LOADS, "end-token-not-trained", "thought-closed-by-template"),
    ),
    Check(
        "question-changed-by-template",
        "The template cuts off or rewrites the text of a message.",
        "https://github.com/huggingface/transformers/issues/35433",
        _content_changed,
        LOADS,
    ),
    Check(
        "date-in-prompt",
        "The template writes today's date, so no run can be repeated.",
        "https://github.com/sgl-project/sglang/issues/3296",
        _date,
        LOADS,
    ),
    Check(
        "prompt-ends-inside-token",
        "A prompt's tokens are no beginning of the tokens of the prompt with its answer.",
        "https://github.com/huggingface/trl/issues/5213",
        _ends_inside_token,
        LOADS,
    ),
)
