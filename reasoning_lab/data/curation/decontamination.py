"""Decontamination: remove training problems that share word n-grams with a benchmark.

A step of curation. Texts are compared as normalized words (`normalization.py`). A benchmark problem
of fewer words than an n-gram is searched for as a whole. Simplified: a stock phrase of n words
("where m and n are relatively prime …") counts like any other; `overlap_frac` demands more.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from reasoning_lab.config.fields import fraction, number
from reasoning_lab.data.curation.normalization import normalized_words
from reasoning_lab.data.curation.step import CurationContext, DropReasons, Step, by_problem
from reasoning_lab.types import Problem, Rollout, UserError, prompt_id


@dataclass
class Decontaminate(Step):
    """Removes problems that overlap with a benchmark's.

    Attributes:
        ngram_words: Normalized words per n-gram.
        overlap_frac: Fraction of a benchmark problem's n-grams that a problem must share to be
            removed; 0 = one is enough. Benchmarks generated from templates need 1.
        short_words: Least words of a benchmark problem, shorter than an n-gram, that is searched
            for inside other texts. An even shorter one must be the whole text.
    """

    ngram_words: int = number(8, least=2)
    overlap_frac: float = fraction(0.0)
    short_words: int = number(4, least=2)

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        if not any(context.benchmarks.values()):
            raise UserError(
                "decontamination: there is no benchmark to compare the corpus with; name one "
                "(benchmark=[…] or the stage's files), or remove the step"
            )
        indexes = [
            BenchmarkIndex(name, prompts, self) for name, prompts in context.benchmarks.items()
        ]

        def overlap(problem: Problem) -> str | None:
            words = normalized_words(problem.user_text)
            return next((match for index in indexes if (match := index.match(words))), None)

        return by_problem(rollouts, overlap)


class BenchmarkIndex:
    """Searches a text for one benchmark's problems."""

    def __init__(self, name: str, prompts: Sequence[str], options: Decontaminate) -> None:
        self._name = name
        self._prompts = prompts
        self._ngram_words = options.ngram_words
        self._whole_texts: dict[str, int] = {}
        self._short_texts: dict[int, dict[str, int]] = {}
        self._prompts_with_ngram: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            words = normalized_words(prompt)
            self._whole_texts.setdefault("".join(words), index)
            if options.short_words <= len(words) < options.ngram_words:
                self._short_texts.setdefault(len(words), {}).setdefault(" ".join(words), index)
            for ngram in set(_ngrams(words, options.ngram_words)):
                self._prompts_with_ngram.setdefault(ngram, []).append(index)
        # A prompt without words matches nothing.
        self._whole_texts.pop("", None)
        counts = Counter(chain.from_iterable(self._prompts_with_ngram.values()))
        self._required_shared: Mapping[int, int] = {
            index: max(1, math.ceil(options.overlap_frac * count))
            for index, count in counts.items()
        }

    def match(self, words: Sequence[str]) -> str | None:
        """The reason: a problem that shares words with these, and the words; None = no match."""
        text = "".join(words)
        if (index := self._whole_texts.get(text)) is not None:
            return self._reason(index, "the whole text")
        for length, texts in self._short_texts.items():
            for ngram in _ngrams(words, length):
                if ngram in texts:
                    return self._reason(texts[ngram], f"all its words '{ngram}'")
        shared: Counter[int] = Counter()
        for ngram in dict.fromkeys(_ngrams(words, self._ngram_words)):
            for index in self._prompts_with_ngram.get(ngram, ()):
                shared[index] += 1
                if shared[index] >= self._required_shared[index]:
                    return self._reason(index, f"the words '{ngram}'")
        return None

    def _reason(self, index: int, shared: str) -> str:
        prompt = self._prompts[index]
        return f"shares {shared} with {self._name} {prompt_id(prompt)}: {prompt!r}"


def _ngrams(words: Sequence[str], length: int) -> Iterator[str]:
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])
