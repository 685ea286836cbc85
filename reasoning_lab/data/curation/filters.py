"""Filters: steps of curation that judge one rollout, or its problem's pass rate."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from omegaconf import MISSING

from reasoning_lab.config.fields import ALL, at_least, choice, fraction, number
from reasoning_lab.config.problems import known_count
from reasoning_lab.data.curation.selection import harder_subset
from reasoning_lab.data.curation.step import CurationContext, DropReasons, Step, by_problem
from reasoning_lab.data.rollout_index import RolloutIndex
from reasoning_lab.rewards.ngrams import repeated_frac, text_units
from reasoning_lab.types import Problem, Rollout, UserError
from reasoning_lab.verify.extraction import BOXED, answer_form

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")


def _check_range(least: float, most: float | None, key: str) -> None:
    if most is not None and least > most:
        raise UserError(f"{key}: least={least} is above most={most}, so nothing remains; swap them")


class CompletionFilter(Step):
    """A step that judges each completion by its text alone."""

    @abstractmethod
    def drop_reason(self, text: str) -> str | None:
        """Why a completion is dropped; None = it stays."""

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        return (self.drop_reason(rollout.completion.text) for rollout in rollouts)


@dataclass
class PassRate(Step):
    """Keeps problems of the chosen difficulty, for example neither always nor hardly ever solved.

    Attributes:
        least: Lowest pass rate of a problem that stays: its fraction of correct rollouts.
        most: Highest pass rate of a problem that stays.
    """

    selects: ClassVar[bool] = True
    least: float = fraction(0.0)
    most: float = fraction(1.0)

    def check(self, key: str) -> None:
        _check_range(self.least, self.most, key)

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        def drop_reason(problem: Problem) -> str | None:
            rate = context.pass_rate(problem.id)
            return None if self.least <= rate <= self.most else f"pass rate {rate:.3g}"

        return by_problem(rollouts, drop_reason)


@dataclass
class Length(CompletionFilter):
    """Keeps completions of a reasonable length.

    Attributes:
        unit: `words` or `characters`; in a script without spaces each character is a word.
        least: Shortest length that stays.
        most: Longest length that stays; null = any.
    """

    unit: str = choice("words", "characters")
    least: int = number(0, least=0)
    most: int | None = number(None, least=1)

    def check(self, key: str) -> None:
        _check_range(self.least, self.most, key)

    def drop_reason(self, text: str) -> str | None:
        length = len(text_units(text)) if self.unit == "words" else len(text)
        fits = length >= self.least and (self.most is None or length <= self.most)
        return None if fits else f"{length} {self.unit}"


@dataclass
class Format(CompletionFilter):
    """Keeps completions that open with one thought and have an answer after it.

    Where a problem's answer belongs into no box, such as a response that follows instructions, no
    `answer` is required, nor a thought: recorded responses have none.

    Attributes:
        opening: The mark that opens the thought; "" where the prompt's template writes it.
        closing: The mark that ends the thought; "" = no thought is required.
        answer: The text that must come after the thought; "" = none is required.
    """

    opening: str = "<think>"
    closing: str = "</think>"
    answer: str = "\\boxed{"

    def check(self, key: str) -> None:
        if self.opening and not self.closing:
            raise UserError(
                f"{key}.closing: a thought that opens must close; give the mark that ends it"
            )

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        unboxed = replace(self, answer="")
        marks = [mark for mark in (self.opening, self.closing) if mark]

        def drop_reason(rollout: Rollout) -> str | None:
            text = rollout.completion.text
            if answer_form(rollout.problem.checker) is BOXED:
                return self.drop_reason(text)
            has_thought = any(mark in text for mark in marks)
            return unboxed.drop_reason(text) if has_thought else None

        return map(drop_reason, rollouts)

    def drop_reason(self, text: str) -> str | None:
        for mark in (self.opening, self.closing):
            if mark and (times := text.count(mark)) != 1:
                return f"'{mark}' occurs {times} times"
        thought, rest = text.split(self.closing) if self.closing else ("", text)
        if self.closing and not thought.strip().removeprefix(self.opening).strip():
            return "the thought is empty"
        if not thought.lstrip().startswith(self.opening):
            return f"'{self.opening}' does not come first"
        return None if self.answer in rest else f"no '{self.answer}' after the thought"


@dataclass
class Repetition(CompletionFilter):
    """Removes completions that repeat themselves.

    Attributes:
        ngram_words: Length of the n-grams in words, or in characters of a script without spaces.
        most_frac: Highest fraction of n-grams that repeat an earlier one of the same text.
        most_lines: Most occurrences of one line; lines without a letter or digit do not count.
    """

    ngram_words: int = number(8, least=1)
    most_frac: float = fraction(0.3)
    most_lines: int = number(16, least=1)

    def drop_reason(self, text: str) -> str | None:
        repeated = repeated_frac(text, self.ngram_words)
        if repeated > self.most_frac:
            return f"{repeated:.0%} of its {self.ngram_words}-grams are repeated"
        lines = Counter(line.strip() for line in text.splitlines())
        line, times = max(
            ((line, n) for line, n in lines.items() if any(map(str.isalnum, line))),
            key=lambda counted: counted[1],
            default=("", 0),
        )
        return f"the line '{line[:80]}' occurs {times} times" if times > self.most_lines else None


@dataclass
class Language(CompletionFilter):
    """Keeps completions in the chosen languages, as py3langid detects them.

    Attributes:
        languages: ISO 639-1 codes.
        least_letters: Least letters for a decision; a text with fewer stays, as formulas are in no
            language. Letters of commands and single letters do not count.
    """

    languages: list[str] = field(default_factory=lambda: ["en"])
    least_letters: int = number(100, least=1)

    def check(self, key: str) -> None:
        if not self.languages:
            raise UserError(f"{key}.languages: it is empty, so nothing remains; name one")
        for code in self.languages:
            if len(code) != 2 or not code.isalpha() or not code.islower():
                raise UserError(
                    f"{key}.languages: '{code}' is no ISO 639-1 code; give one such as en"
                )

    def drop_reason(self, text: str) -> str | None:
        # The first import loads the model, which takes a second.
        from py3langid import classify

        plain = " ".join(_LETTERS.findall(_COMMAND.sub(" ", text)))
        if len(plain.replace(" ", "")) < self.least_letters:
            return None
        code, _ = classify(plain)
        return None if code in self.languages else f"language {code}"


@dataclass
class HarderSubset(Step):
    """Keeps the compact, representative, harder subset of the paper's second step.

    Attributes:
        levels: Difficulty levels that stay; null = all.
        count: Most rollouts that stay; `all` = the longest of each problem.
    """

    selects: ClassVar[bool] = True
    levels: list[int] | None = MISSING
    count: int | str = at_least(1, ALL)

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        index = RolloutIndex.of(rollouts)
        stays = np.zeros(len(index), np.bool_)
        count = known_count(self.count)
        stays[harder_subset(index, self.levels, count, context.seed)] = True
        return (None if one else "not in the subset" for one in stays)
