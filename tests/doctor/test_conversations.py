"""A system prompt and conversations, which a template may show or not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_lab.config.model import ModelConfig
from reasoning_lab.doctor.check import State, ok
from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.types import Message, Problem
from reasoning_lab.verify import Verifier
from tests.doctor.test_checks import (
    CHATTING,
    HARDWARE,
    PROBLEMS,
    examined,
    in_state,
    save,
)
from tests.support.damage import rewrite_template
from tests.support.twins import TWINS


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(1, timeout_s=20, memory_mb=1024) as opened:
        yield opened


CONVERSATION = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?"))


@pytest.mark.parametrize(
    ("family", "note"),
    [
        ("qwen3", ""),
        (
            "gemma",
            "the template takes no system message, so its text begins the first user's turn",
        ),
    ],
)
def test_a_system_prompt_is_looked_at_with_the_template(
    family: str, note: str, verifier: Verifier, tmp_path: Path
) -> None:
    save(CHATTING[family], tmp_path)
    options = ModelConfig(path=str(tmp_path), system_prompt="Think between <think> and </think>.")
    problems = [*PROBLEMS, replace(PROBLEMS[0], prompt="And 4?", earlier_messages=CONVERSATION)]
    results = examined(ModelUnderTest(options, HARDWARE, problems, [], verifier))
    assert in_state(results, State.WRONG, State.FAILED, State.NOT_RUN) == {}
    assert results["tokenizer-unreadable"].result == ok(note)


@pytest.mark.parametrize(
    ("system_prompt", "problems", "says"),
    [
        ("Be brief.", PROBLEMS, "model.system_prompt: the chat template shows it neither"),
        (
            None,
            [replace(PROBLEMS[0], earlier_messages=CONVERSATION[1:])],
            "a conversation (user, assistant, user)",
        ),
    ],
)
def test_a_template_that_shows_no_conversation_is_named(
    system_prompt: str | None,
    problems: list[Problem],
    says: str,
    verifier: Verifier,
    tmp_path: Path,
) -> None:
    save(TWINS["qwen3"], tmp_path)
    shown = "(message['content'] if messages | length == 1 and messages[0].content | length < 400"
    rewrite_template("message['content']", f"{shown} else 'x')")(tmp_path)
    if system_prompt is not None:
        rewrite_template("< 400", "< 3")(tmp_path)
    options = ModelConfig(path=str(tmp_path), system_prompt=system_prompt)
    results = examined(ModelUnderTest(options, HARDWARE, problems, [], verifier))
    findings = in_state(results, State.WRONG, State.FAILED)
    assert findings.keys() == {"tokenizer-unreadable"}
    assert says in findings["tokenizer-unreadable"]
