"""Which tokenizers are the same to a policy that grades another's tokens."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.same_tokenizer import require_same_tokenizer, tokenizer_difference
from reasoning_lab.models.tokenizer import END, PAD, train_tokenizer
from reasoning_lab.types import UserError

TEXTS = ["How much is 2 + 3?", "It is five."] * 4
Change = Callable[[PreTrainedTokenizerFast], object]


def trained() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 300)


def without_tags() -> PreTrainedTokenizerFast:
    """As a checkpoint of the hub, which gets think tags when it is trained."""
    whole = trained()
    state = json.loads(whole.backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if "think" not in t["content"]]
    backend = Tokenizer.from_str(json.dumps(state))
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=PAD)
    fast.chat_template = whole.chat_template
    return fast


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda tokenizer: None, None),
        (lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "<none>"}), None),
        (
            lambda tokenizer: tokenizer.add_tokens(["<aside>"]),
            f"token '<aside>' has the number {len(trained())} there and none here, "
            "and 1 differ in all",
        ),
        (
            lambda tokenizer: setattr(tokenizer, "eos_token", "<|user|>"),
            "its turns end with '<|user|>' and the student's with '<|end|>'",
        ),
        (
            lambda tokenizer: setattr(tokenizer, "chat_template", "{{ messages[0]['content'] }}"),
            "its chat template writes a prompt otherwise",
        ),
    ],
)
def test_a_difference_is_named(change: Change, difference: str | None) -> None:
    grader = trained()
    change(grader)
    assert tokenizer_difference(trained(), grader) == difference


def test_a_student_gets_think_tags_and_a_grader_must_have_them(tmp_path: Path) -> None:
    whole, bare = Policy(tmp_path / "whole"), Policy(tmp_path / "bare")
    trained().save_pretrained(whole.path)
    without_tags().save_pretrained(bare.path)
    require_same_tokenizer(bare, whole, None, "key=value")
    for student in (whole, bare):
        with pytest.raises(UserError, match="token '</think>' has the number none there"):
            require_same_tokenizer(student, bare, None, "key=value")


def test_a_refusal_names_key_value_and_remedy(tmp_path: Path) -> None:
    folders = [tmp_path / "student", tmp_path / "grader"]
    other = train_tokenizer(["Other words are here."] * 4, 290)
    for folder, tokenizer in zip(folders, (trained(), other), strict=True):
        tokenizer.save_pretrained(folder)
    student, grader = map(Policy, folders)
    key = "stages.opd.teacher.path"
    require_same_tokenizer(student, student, "Be brief.", f"{key}={student.path}")
    with pytest.raises(UserError) as refusal:
        require_same_tokenizer(student, grader, None, f"{key}={grader.path}")
    sentence = str(refusal.value)
    assert sentence.startswith(f"{key}={grader.path}: ")
    assert sentence.endswith("name a policy with the student's tokenizer and chat template")
    with pytest.raises(UserError, match=rf"{key}: cannot load '.*nowhere'"):
        require_same_tokenizer(student, Policy(tmp_path / "nowhere"), None, f"{key}=nowhere")
