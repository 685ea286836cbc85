"""Steps of curation that look at one rollout at a time, or at its problem's pass rate."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from reasoning_lab.config.fields import at_least, choice, fraction, number
from reasoning_lab.data.curation.selection import harder_subset
from reasoning_lab.data.curation.step import Background, Reasons, Step, by_problem
from reasoning_lab.rewards.ngrams import repeated_frac, text_units
from reasoning_lab.types import Rollout, UserError

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")


def _check_range(least: float, most: float | None, key: str) -> None:
    if most is not None and least > most:
        raise UserError(f"{key}: least={least} is above most={most}, so nothing stays; swap them")


def _each(rollouts: Sequence[Rollout], why: Callable[[str], str | None]) -> Reasons:
    return [why(rollout.completion.text) for rollout in rollouts]


@dataclass
class PassRate(Step):
    """Problems of the wanted difficulty: neither always solved nor hardly ever.

    Attributes:
        least: Lowest fraction of correct rollouts of a problem that stays.
        most: Highest.
    """

    selects: ClassVar[bool] = True
    least: float = fraction(0.0)
    most: float = fraction(1.0)

    def check(self, key: str) -> None:
        _check_range(self.least, self.most, key)

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        def why(name: str) -> str | None:
            rate = background.pass_rates[name]
            return None if self.least <= rate <= self.most else f"pass rate {rate:.3g}"

        return by_problem(rollouts, lambda problem: why(problem.id))


@dataclass
class Length(Step):
    """Completions of a reasonable length.

    Attributes:
        unit: What is counted; of a script without spaces each character is a word.
        least: Shortest that stays.
        most: Longest that stays; null = any.
    """

    unit: str = choice("words", "characters")
    least: int = number(0, least=0)
    most: int | None = number(None, least=1)

    def check(self, key: str) -> None:
        _check_range(self.least, self.most, key)

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        def why(text: str) -> str | None:
            length = len(text_units(text)) if self.unit == "words" else len(text)
            fits = length >= self.least and (self.most is None or length <= self.most)
            return None if fits else f"{length} {self.unit}"

        return _each(rollouts, why)


@dataclass
class Format(Step):
    """One thought, which opens the completion, and an answer after it; "" = not asked for.

    Attributes:
        opening: What begins the thought; "" where the prompt's template has it.
        closing: What ends the thought.
        answer: What must come after it.
    """

    opening: str = "<think>"
    closing: str = "</think>"
    answer: str = "\\boxed{"

    def check(self, key: str) -> None:
        if self.opening and not self.closing:
            raise UserError(f"{key}.closing: a thought that opens must close; name what ends it")

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        return _each(rollouts, self._fault)

    def _fault(self, text: str) -> str | None:
        for mark in (self.opening, self.closing):
            if mark and (times := text.count(mark)) != 1:
                return f"'{mark}' is there {times} times"
        thought, rest = text.split(self.closing) if self.closing else ("", text)
        if self.closing and not thought.strip().removeprefix(self.opening).strip():
            return "the thought is empty"
        if not thought.lstrip().startswith(self.opening):
            return f"'{self.opening}' does not come first"
        return None if self.answer in rest else f"no '{self.answer}' at its place"


@dataclass
class Repetition(Step):
    """Completions that do not go in circles.

    Attributes:
        ngram_words: Length of the n-grams: words, or characters where a script has no spaces.
        most_frac: Highest fraction of them that may have occurred before in the same text.
        most_lines: How often one line may occur; a line without a letter or digit does not count.
    """

    ngram_words: int = number(8, least=1)
    most_frac: float = fraction(0.3)
    most_lines: int = number(16, least=1)

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        return _each(rollouts, self._fault)

    def _fault(self, text: str) -> str | None:
        repeated = repeated_frac(text, self.ngram_words)
        if repeated > self.most_frac:
            return f"{repeated:.0%} of its {self.ngram_words}-grams are repeated"
        lines = Counter(line.strip() for line in text.splitlines())
        line, times = max(
            ((line, n) for line, n in lines.items() if any(map(str.isalnum, line))),
            key=lambda counted: counted[1],
            default=("", 0),
        )
        return f"{times} times the line '{line[:80]}'" if times > self.most_lines else None


@dataclass
class Language(Step):
    """Completions in the wanted languages, by py3langid.

    Attributes:
        languages: ISO 639-1 codes.
        least_letters: Letters, those of commands and single ones apart, below which a text says
            too little of its language and stays: formulas are in none.
    """

    languages: list[str] = field(default_factory=lambda: ["en"])
    least_letters: int = number(100, least=1)

    def check(self, key: str) -> None:
        if not self.languages:
            raise UserError(f"{key}.languages: it is empty, so nothing stays; name one")
        for code in self.languages:
            if len(code) != 2 or not code.isalpha() or not code.islower():
                raise UserError(f"{key}.languages: '{code}' is no code; give one such as en")

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        # Loads its model, which takes a second, when it is first asked.
        from py3langid import classify

        def why(text: str) -> str | None:
            plain = " ".join(_LETTERS.findall(_COMMAND.sub(" ", text)))
            if len(plain.replace(" ", "")) < self.least_letters:
                return None
            code, _ = classify(plain)
            return None if code in self.languages else f"language {code}"

        return _each(rollouts, why)


@dataclass
class Harder(Step):
    """The compact, representative, harder subset of the paper's second step.

    Attributes:
        levels: Difficulty levels that stay.
        count: Most rollouts.
    """

    selects: ClassVar[bool] = True
    levels: list[int] = MISSING
    count: int = at_least(1)

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        chosen = harder_subset(rollouts, self.levels, self.count, background.seed)
        kept = {id(rollout) for rollout in chosen}
        return [None if id(rollout) in kept else "not in the subset" for rollout in rollouts]
