"""Deduplication: steps of curation that keep the first of equal or similar texts.

MinHash with locality-sensitive hashing (datasketch) proposes near duplicates; the exact Jaccard
similarity of their shingles decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reasoning_lab.config.fields import number
from reasoning_lab.data.curation.normalization import normalized_words
from reasoning_lab.data.curation.step import CurationContext, DropReasons, Step, by_problem
from reasoning_lab.types import Problem, Rollout


@dataclass
class DuplicateProblems(Step):
    """Removes other spellings of a prompt: of prompts that read the same, the first stays.

    Several rollouts of the remaining prompt are no duplicates.
    """

    def drop_reasons(self, rollouts: Sequence[Rollout], context: CurationContext) -> DropReasons:
        first_by_id: dict[str, Problem] = {}
        reasons: DropReasons = []
        for rollout in rollouts:
            problem = rollout.problem
            first = first_by_id.setdefault(problem.id, problem)
            same = (problem.prompt, problem.gold) == (first.prompt, first.gold)
            reasons.append(None if same else f"reads like {problem.id}: {first.prompt!r}")
        return reasons


@dataclass
class DuplicateCompletions(Step):
    """Removes repeated completions of a problem; the first of identical ones stays."""

    def drop_reasons(self, rollouts: Sequence[Rollout], context: CurationContext) -> DropReasons:
        seen: set[tuple[str, str]] = set()
        reasons: DropReasons = []
        for rollout in rollouts:
            key = (rollout.problem.id, rollout.completion.text)
            reasons.append("the same completion as before" if key in seen else None)
            seen.add(key)
        return reasons


@dataclass
class NearDuplicates(Step):
    """Removes problems that differ in only a few words; the first of similar ones stays.

    Do not use it for problems of a template, which share most words and still differ.

    Attributes:
        threshold: Least Jaccard similarity of two problems' shingles that makes them similar.
        shingle_words: Normalized words per shingle.
        permutations: Hashes per problem; more of them detect more pairs near the threshold.
    """

    threshold: float = number(0.8, least=0.3, most=0.95)
    shingle_words: int = number(5, least=1)
    permutations: int = number(128, least=32)

    def drop_reasons(self, rollouts: Sequence[Rollout], context: CurationContext) -> DropReasons:
        from datasketch import MinHash, MinHashLSH

        # A superfluous candidate costs one comparison; a missing one leaves a duplicate.
        index = MinHashLSH(threshold=self.threshold, num_perm=self.permutations, weights=(0.1, 0.9))
        prompts: dict[str, str] = {}

        def duplicate_of(problem: Problem) -> str | None:
            shingles = self._shingles(problem.prompt)
            signature = MinHash(num_perm=self.permutations)
            signature.update_batch([shingle.encode() for shingle in sorted(shingles)])
            for name in sorted(index.query(signature)):
                other = self._shingles(prompts[name])
                similarity = len(shingles & other) / len(shingles | other)
                if similarity >= self.threshold:
                    return f"similarity {similarity:.2f} with {name}: {prompts[name]!r}"
            index.insert(problem.id, signature)
            prompts[problem.id] = problem.prompt
            return None

        return by_problem(rollouts, duplicate_of)

    def _shingles(self, prompt: str) -> set[str]:
        """The shingles of a prompt; a text shorter than a shingle is one shingle."""
        words = normalized_words(prompt) or [prompt]
        last = max(len(words) - self.shingle_words, 0)
        return {" ".join(words[start : start + self.shingle_words]) for start in range(last + 1)}
