"""Training problems that give a benchmark away: found by shared word n-grams, or equal text.

A step of curation. Texts are compared as normalized words (`reasoning_lab.data.curation.words`). An
n-gram cannot see a benchmark problem of fewer than n words, so that one is looked for whole.
Simplified: a stock phrase of n words ("where m and n are relatively prime …") counts like any
other; `overlap_frac` is the way to ask for more.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reasoning_lab.config.fields import fraction, number
from reasoning_lab.data.curation.step import Background, Reasons, Step, by_problem
from reasoning_lab.data.curation.words import words
from reasoning_lab.types import Problem, Rollout, UserError, prompt_id


@dataclass
class Decontaminate(Step):
    """Problems that have nothing to do with a benchmark's.

    Attributes:
        ngram_words: Normalized words an n-gram.
        overlap_frac: Fraction of a benchmark problem's n-grams that a problem must share to be
            removed; 0 = one is enough. Benchmarks made from templates need 1.
        short_words: A benchmark problem of fewer words than an n-gram is looked for inside of
            others only when it has as many as this; a shorter one must be the whole text.
    """

    ngram_words: int = number(8, least=2)
    overlap_frac: float = fraction(0.0)
    short_words: int = number(4, least=2)

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        if not any(background.benchmarks.values()):
            raise UserError(
                "decontamination: there is no benchmark to hold the corpus against; name one "
                "(benchmark=[…] or the stage's files), or take the step out"
            )
        indexes = [Index(name, prompts, self) for name, prompts in background.benchmarks.items()]

        def why(problem: Problem) -> str | None:
            parts = words(problem.prompt)
            return next((said for index in indexes if (said := index.match(parts))), None)

        return by_problem(rollouts, why)


class Index:
    """Looks for one benchmark's problems in a text.

    Args:
        name: The benchmark's, for the reasons.
        prompts: Its problems.
        options: How they are looked for.
    """

    def __init__(self, name: str, prompts: Sequence[str], options: Decontaminate) -> None:
        self._name = name
        self._prompts = prompts
        self._ngram_words = options.ngram_words
        self._whole: dict[str, int] = {}
        self._short: dict[int, dict[str, int]] = {}
        holders: dict[str, list[int]] = {}
        for number_, prompt in enumerate(prompts):
            parts = words(prompt)
            self._whole.setdefault("".join(parts), number_)
            if options.short_words <= len(parts) < options.ngram_words:
                self._short.setdefault(len(parts), {}).setdefault(" ".join(parts), number_)
            for ngram in set(_ngrams(parts, options.ngram_words)):
                holders.setdefault(ngram, []).append(number_)
        # A prompt without words says nothing.
        self._whole.pop("", None)
        self._holders = holders
        counts = Counter(number_ for who in holders.values() for number_ in who)
        self._wanted: Mapping[int, int] = {
            number_: max(1, math.ceil(options.overlap_frac * count))
            for number_, count in counts.items()
        }

    def match(self, parts: Sequence[str]) -> str | None:
        """Which problem the text of these words gives away and by which words, if any."""
        text = "".join(parts)
        if (number_ := self._whole.get(text)) is not None:
            return self._said(number_, "the whole text")
        for length, known in self._short.items():
            for ngram in _ngrams(parts, length):
                if ngram in known:
                    return self._said(known[ngram], f"all its words '{ngram}'")
        shared: Counter[int] = Counter()
        for ngram in dict.fromkeys(_ngrams(parts, self._ngram_words)):
            for number_ in self._holders.get(ngram, ()):
                shared[number_] += 1
                if shared[number_] >= self._wanted[number_]:
                    return self._said(number_, f"the words '{ngram}'")
        return None

    def _said(self, number_: int, shared: str) -> str:
        prompt = self._prompts[number_]
        return f"shares {shared} with {self._name} {prompt_id(prompt)}: {prompt!r}"


def _ngrams(parts: Sequence[str], length: int) -> Iterator[str]:
    for start in range(len(parts) - length + 1):
        yield " ".join(parts[start : start + length])
