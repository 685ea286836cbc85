"""The records that flow from data to losses: problems, completions, rollouts, pairs.

Every stage reads and writes these. Nothing here imports torch, so schemas and commands that only
plan stay fast. Tokens are plain lists; collation turns them into tensors.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class UserError(Exception):
    """A user's mistake, in one sentence: what, where, and the remedy."""


class Split(StrEnum):
    """The part of a problem source that a prompt belongs to; no prompt is in two."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Verdict(StrEnum):
    """The verifier's verdict on one completion; the four are counted separately."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: Its text, without chat markup.
    """

    role: str
    content: str


# The domain of a problem whose source names none.
DEFAULT_DOMAIN = "mathematics"
# What a model is asked: the user's turn, or messages of which the last is the user's turn.
Prompt = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a checkable answer.

    Attributes:
        prompt: The question, without chat markup; in a conversation, its last message.
        gold: The known answer, as its source writes it.
        checker: The rule that compares an answer with `gold`: `math`, `number`, `choice`,
            `python`, `instructions`, `reasoning_gym/<family>` or the import path of a user's rule.
        family: The kind of problem; tables and stratified selection group by it.
        level: Difficulty within the family, 1 = easiest.
        metadata: Further JSON values for the checker and the teachers. `choices` are the options'
            texts; `instructions` are on the form of the response, beside another checker's gold;
            `row` names the file and line of the problem.
        earlier_messages: What comes before `prompt` in a conversation: a system message, then turns
            of the user and the assistant in turn.
        domain: The field that it belongs to, such as `mathematics` or `logic`; it has families.
    """

    prompt: str
    gold: str
    checker: str
    family: str
    level: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    earlier_messages: tuple[Message, ...] = ()
    domain: str = DEFAULT_DOMAIN

    @property
    def id(self) -> str:
        """Hash of the normalized `user_text`: equal for prompts that read the same."""
        return prompt_id(self.user_text)

    @property
    def user_text(self) -> str:
        """All that the user says. It identifies a conversation, whatever else is said in it."""
        return user_text(self.prompt, self.earlier_messages)

    @property
    def model_prompt(self) -> Prompt:
        """What a model is asked."""
        return model_prompt(self.prompt, self.earlier_messages)

    @property
    def transcript(self) -> str:
        """The prompt for a reader; the roles are named where there are earlier messages."""
        if not self.earlier_messages:
            return self.prompt
        turns = [*self.earlier_messages, Message("user", self.prompt)]
        return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)

    @property
    def origin(self) -> str:
        """Its name in an error message: its row, else its id and first words."""
        words = " ".join(self.prompt.split())[:60]
        return str(self.metadata.get("row") or f"problem {self.id} ({words!r})")


def user_text(prompt: str, earlier_messages: Sequence[Message]) -> str:
    """All that the user says in a conversation that ends with `prompt`."""
    said = [turn.content for turn in earlier_messages if turn.role == "user"]
    return "\n\n".join([*said, prompt])


def model_prompt(prompt: str, earlier_messages: Sequence[Message]) -> Prompt:
    """What a model is asked: a text, or a conversation that ends with `prompt`."""
    return (*earlier_messages, Message("user", prompt)) if earlier_messages else prompt


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """The prompt as a conversation; the last message is the user's turn."""
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def prompt_id(prompt: str) -> str:
    """16 hex digits that identify a prompt; case, spacing and Unicode form do not matter."""
    text = " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Completion:
    """The text that a model or another author wrote after a prompt.

    Attributes:
        token_ids: The sampled tokens, with the end token if it was sampled. Empty when the author
            is no model of ours.
        text: Their decoding without the end token.
        logprobs: log p(token | earlier tokens) of each token under softmax(logits / temperature),
            before any top-p truncation. Empty when the author is no model of ours.
        truncated: True = the token limit ended it, or its thought was cut off.
    """

    token_ids: Sequence[int]
    text: str
    logprobs: Sequence[float] = ()
    truncated: bool = False

    @property
    def answered(self) -> bool:
        """False = a server returned nothing: no text and no end token."""
        return bool(self.token_ids) or bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class Rollout:
    """One verified completion of a problem.

    Attributes:
        problem: The problem.
        completion: The completion.
        answer: The answer that the verifier extracted from the text; None = there was none.
        verdict: The verdict on the answer.
        author: A policy's fingerprint or a teacher's name.
        policy_version: Number of updates of the sampling policy in its stage, at the first token;
            0 outside RL.
        judge: The model that gave the verdict because the verifier could not read the answer;
            None = the verifier gave it.
        passed_frac: The fraction of the problem's tests that the answer passed, in [0, 1]; None =
            its checker has no tests.
        token_versions: The policy version that sampled each token, where updates came in between;
            empty = `policy_version` sampled all of them.
    """

    problem: Problem
    completion: Completion
    answer: str | None
    verdict: Verdict
    author: str
    policy_version: int = 0
    judge: str | None = None
    passed_frac: float | None = None
    token_versions: Sequence[int] = ()

    @property
    def correct(self) -> bool:
        return self.verdict is Verdict.CORRECT

    @property
    def last_policy_version(self) -> int:
        """Of the last token."""
        return self.token_versions[-1] if self.token_versions else self.policy_version


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The rollouts of one problem that are compared with each other."""

    problem: Problem
    rollouts: Sequence[Rollout]

    @property
    def pass_rate(self) -> float:
        """Fraction of correct rollouts, in [0, 1]."""
        return sum(rollout.correct for rollout in self.rollouts) / len(self.rollouts)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A correct and an incorrect rollout of the same problem."""

    chosen: Rollout
    rejected: Rollout

    def __post_init__(self) -> None:
        if self.chosen.problem.id != self.rejected.problem.id:
            raise ValueError("a preference pair compares two rollouts of one problem")
        if not self.chosen.correct or self.rejected.correct:
            raise ValueError("chosen must be correct and rejected must not be")


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenized prompt and a completion to train on, with its end token."""

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]

    @property
    def length(self) -> int:
        """Number of tokens of the prompt and the completion."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Bounds on the rows that a stage trains on or writes, from its config.

    Attributes:
        rows: Number of rows.
        tokens: Most tokens of a row; the prompt before a sampled completion does not count.
        rows_per_forward: Rows of one forward pass where `hardware` does not set it.
        sequences_per_row: 2 = a row is a pair, else 1.
        packed: True = a row holds several documents.
        rows_in_memory: Rows that are in a process's memory at once; None = all.
    """

    rows: int
    tokens: int
    rows_per_forward: int = 1
    sequences_per_row: int = 1
    packed: bool = False
    rows_in_memory: int | None = None
