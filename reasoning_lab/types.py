"""The records that flow from data to losses: problems, completions, rollouts, pairs.

Every stage reads and writes these, and nothing here imports torch, so schemas and
commands that only plan stay fast. Tokens are plain lists; tensors begin at collation.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class UserError(Exception):
    """A mistake of the user's, told in one sentence: what, where, and the remedy."""


class Split(StrEnum):
    """Which part of a problem source a prompt belongs to; no prompt is in two."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Verdict(StrEnum):
    """What the verifier says of one completion; the four are counted apart, never merged."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a checkable answer.

    Attributes:
        prompt: What the model is asked, without chat markup.
        gold: The known answer, as its source writes it.
        checker: Which rule compares an answer with `gold`: `math`, `number`, `choice`,
            `reasoning_gym/<family>` or the import path of a rule of the user's own.
        family: The kind of problem; tables and stratified selection group by it.
        level: Difficulty within the family, 1 = easiest.
        metadata: What the checker and the procedural teacher need beyond the text; JSON only.
            `choices` are the options' texts, `row` names the file and line it was read from.
    """

    prompt: str
    gold: str
    checker: str
    family: str
    level: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Hash of the normalized prompt: equal for prompts that read the same."""
        return prompt_id(self.prompt)

    @property
    def origin(self) -> str:
        """How an error message names it: by its row, else by its id and first words."""
        words = " ".join(self.prompt.split())[:60]
        return str(self.metadata.get("row") or f"problem {self.id} ({words!r})")


def prompt_id(prompt: str) -> str:
    """16 hex digits that name a prompt, blind to case, spacing and Unicode form."""
    text = " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        token_ids: The sampled tokens, the end token included when it was sampled.
        text: Their decoding without special tokens that only mark the end.
        logprobs: One a token, log p(token | before) under softmax(logits / temperature)
            before any top-p truncation; empty when the author is not a model of ours.
        truncated: True = stopped by the token limit, not by the end token.
    """

    token_ids: Sequence[int]
    text: str
    logprobs: Sequence[float] = ()
    truncated: bool = False

    @property
    def answered(self) -> bool:
        """False = a server gave nothing: no text, and not even an end token."""
        return bool(self.token_ids) or bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class Rollout:
    """One verified completion of a problem.

    Attributes:
        problem: What was asked.
        completion: What was written.
        answer: The answer that the verifier took from the text; None = there was none.
        verdict: The verifier's word on it.
        author: Who wrote it: a policy's fingerprint or a teacher's name.
        policy_version: Updates that the sampling policy had seen in its stage; 0 outside RL.
        judge: The model whose verdict it is, as the verifier could not read the answer; None =
            the verdict is the verifier's.
    """

    problem: Problem
    completion: Completion
    answer: str | None
    verdict: Verdict
    author: str
    policy_version: int = 0
    judge: str | None = None

    @property
    def correct(self) -> bool:
        return self.verdict is Verdict.CORRECT


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All rollouts of one problem that are compared with each other."""

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
    """A tokenized prompt and a completion to learn from, its end token included."""

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Rows that a stage trains on or writes, as far as its config bounds them.

    Attributes:
        rows: Their number.
        tokens: Most of one; a prompt that comes before a completion is not counted.
        at_once: Rows, or pairs, of one forward pass where `hardware` does not say.
        each: Rows that one of these is: 2 = a pair.
        packed: True = a row holds several documents.
    """

    rows: int
    tokens: int
    at_once: int = 1
    each: int = 1
    packed: bool = False
