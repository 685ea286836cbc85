"""Steps of curation that keep the first of what is there more than once.

Near duplicates are found by MinHash with locality-sensitive hashing (datasketch): the hashes
propose candidates, the exact Jaccard similarity of their shingles decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reasoning_lab.config.fields import number
from reasoning_lab.data.curation.step import Background, Reasons, Step, by_problem
from reasoning_lab.data.curation.words import words
from reasoning_lab.types import Problem, Rollout


@dataclass
class DuplicateProblems(Step):
    """One spelling of each prompt: of prompts that read the same, the first stays.

    Several rollouts of the prompt that stays are no duplicates.
    """

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        first: dict[str, Problem] = {}
        found: Reasons = []
        for rollout in rollouts:
            problem = rollout.problem
            known = first.setdefault(problem.id, problem)
            same = (problem.prompt, problem.gold) == (known.prompt, known.gold)
            found.append(None if same else f"reads like {problem.id}: {known.prompt!r}")
        return found


@dataclass
class DuplicateCompletions(Step):
    """Different completions of each problem: of identical ones, the first stays."""

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        seen: set[tuple[str, str]] = set()
        found: Reasons = []
        for rollout in rollouts:
            name = (rollout.problem.id, rollout.completion.text)
            found.append("the same completion as before" if name in seen else None)
            seen.add(name)
        return found


@dataclass
class NearDuplicates(Step):
    """Problems that differ in more than a few words: of similar ones, the first stays.

    Not for problems of a template, which share most words and are different problems.

    Attributes:
        threshold: Least Jaccard similarity of two problems' shingles that makes them similar.
        shingle_words: Normalized words a shingle.
        permutations: Hashes a problem; more find more of the pairs near the threshold.
    """

    threshold: float = number(0.8, least=0.3, most=0.95)
    shingle_words: int = number(5, least=1)
    permutations: int = number(128, least=32)

    def reasons(self, rollouts: Sequence[Rollout], background: Background) -> Reasons:
        from datasketch import MinHash, MinHashLSH

        # A candidate too many costs a comparison, one too few a duplicate.
        index = MinHashLSH(threshold=self.threshold, num_perm=self.permutations, weights=(0.1, 0.9))
        prompts: dict[str, str] = {}

        def why(problem: Problem) -> str | None:
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

        return by_problem(rollouts, why)

    def _shingles(self, prompt: str) -> set[str]:
        """Never empty: a text shorter than a shingle is one."""
        parts = words(prompt) or [prompt]
        last = max(len(parts) - self.shingle_words, 0)
        return {" ".join(parts[start : start + self.shingle_words]) for start in range(last + 1)}
