"""Whether one policy can grade the tokens of another: they must mean the same to both."""

from transformers import PreTrainedTokenizerBase

from reasoning_lab.models.chat import set_system_prompt
from reasoning_lab.models.policy import load_tokenizer
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.types import UserError

_PROMPT = "How much is 2 + 3?"


def require_same_tokenizer(
    student: Policy, grader: Policy, system_prompt: str | None, key: str
) -> None:
    """Refuse a grader whose tokens are not those that the student writes; no weights are read.

    Args:
        student: It may be a checkpoint that gets think tags when it is trained.
        grader: It must have them, since it cannot grade what it never saw.
        system_prompt: What both chat templates then begin with; None = as they are.
        key: The config key and value that name the grader, for errors.

    Raises:
        UserError: Vocabularies, ends of turns or rendered prompts differ, or a tokenizer cannot be
            loaded.
    """
    ours, theirs = (
        load_tokenizer(policy.path, policy.revision, name)
        for policy, name in ((student, "model.path"), (grader, key.partition("=")[0]))
    )
    vocabulary = ours.get_vocab()
    ours.add_tokens([tag for tag in (THINK_OPEN, THINK_CLOSE) if tag not in vocabulary])
    if system_prompt is not None:
        for tokenizer in (ours, theirs):
            set_system_prompt(tokenizer, system_prompt, "model.system_prompt")
    if difference := tokenizer_difference(ours, theirs):
        raise UserError(
            f"{key}: {difference}, so it cannot grade the student's tokens; name a policy with the "
            "student's tokenizer and chat template"
        )


def tokenizer_difference(
    student: PreTrainedTokenizerBase, grader: PreTrainedTokenizerBase
) -> str | None:
    """What of the student's tokens is another one to the grader, in words; None = nothing.

    Padding is no difference, because no policy writes it.
    """
    ours, theirs = student.get_vocab(), grader.get_vocab()
    padding = {student.pad_token, grader.pad_token}
    differing = sorted(
        token for token in {*ours, *theirs} - padding if ours.get(token) != theirs.get(token)
    )
    if differing:
        token = differing[0]
        ids = [vocabulary.get(token, "none") for vocabulary in (theirs, ours)]
        return (
            f"token {token!r} has the number {ids[0]} there and {ids[1]} here, and "
            f"{len(differing):,} differ in all"
        )
    if student.eos_token != grader.eos_token:
        return (
            f"its turns end with {grader.eos_token!r} and the student's with {student.eos_token!r}"
        )
    prompts = [prompt_tokens(tokenizer, [_PROMPT]) for tokenizer in (student, grader)]
    return None if prompts[0] == prompts[1] else "its chat template writes a prompt otherwise"
