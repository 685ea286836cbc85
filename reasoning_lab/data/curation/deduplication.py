"""Deduplication: steps of curation that keep the first of equal or similar texts.

MinHash (datasketch) with locality-sensitive hashing proposes near duplicates; the exact Jaccard
similarity of their shingles decides. Of each problem, a few numbers are in memory.
"""

import tempfile
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from reasoning_lab.config.fields import number
from reasoning_lab.data.curation.normalization import normalized_words
from reasoning_lab.data.curation.step import CurationContext, DropReasons, Step
from reasoning_lab.types import Rollout


@dataclass
class DuplicateProblems(Step):
    """Removes other spellings of a prompt: of prompts that read the same, the first stays.

    Several rollouts of the remaining prompt are no duplicates.
    """

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        first_spellings: dict[int, int] = {}
        for rollout in rollouts:
            problem = rollout.problem
            spelling = hash((problem.model_prompt, problem.gold))
            same = first_spellings.setdefault(int(problem.id, 16), spelling) == spelling
            yield None if same else f"another spelling of problem {problem.id}"


@dataclass
class DuplicateCompletions(Step):
    """Removes repeated completions of a problem; the first of identical ones stays."""

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        seen: set[int] = set()
        for rollout in rollouts:
            completion = hash((rollout.problem.id, rollout.completion.text))
            yield "the same completion as before" if completion in seen else None
            seen.add(completion)


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

    def drop_reasons(self, rollouts: Collection[Rollout], context: CurationContext) -> DropReasons:
        reasons = self._reasons(rollouts)
        return (reasons.get(int(rollout.problem.id, 16)) for rollout in rollouts)

    def _reasons(self, rollouts: Iterable[Rollout]) -> dict[int, str]:
        """Why some problems are dropped."""
        with tempfile.TemporaryFile() as file:
            ids, ends = array("Q"), array("q", [0])

            def prompts() -> Iterator[str]:
                seen: set[int] = set()
                for rollout in rollouts:
                    problem = rollout.problem
                    if (number := int(problem.id, 16)) not in seen:
                        seen.add(number)
                        ids.append(number)
                        file.write(problem.user_text.encode("utf-8", "surrogatepass"))
                        ends.append(file.tell())
                        yield problem.user_text

            bands = self._bands(prompts())
            file.flush()

            def prompt(place: int) -> str:
                file.seek(ends[place])
                return file.read(ends[place + 1] - ends[place]).decode("utf-8", "surrogatepass")

            reasons: dict[int, str] = {}
            kept_with: dict[tuple[int, int], list[int]] = defaultdict(list)
            shared = _shared(bands)
            for place in np.flatnonzero(shared.any(axis=1)).tolist():
                shared_bands = np.flatnonzero(shared[place])
                hashes = bands[place, shared_bands].tolist()
                keys = list(zip(shared_bands.tolist(), hashes, strict=True))
                candidates = {other for key in keys for other in kept_with[key]}
                shingles = self._shingles(prompt(place)) if candidates else set()
                for other in sorted(candidates, key=ids.__getitem__):
                    others = self._shingles(prompt(other))
                    similarity = len(shingles & others) / len(shingles | others)
                    if similarity >= self.threshold:
                        name = f"{ids[other]:016x}: {prompt(other)!r}"
                        reasons[ids[place]] = f"similarity {similarity:.2f} with {name}"
                        break
                else:
                    for key in keys:
                        kept_with[key].append(place)
            return reasons

    def _bands(self, prompts: Iterable[str]) -> Int[np.ndarray, "P bands"]:
        """Hashes of each prompt's signature by band; similar prompts share one or more."""
        from datasketch import MinHash, MinHashLSH

        # A superfluous candidate costs one comparison; a missing one leaves a duplicate.
        index = MinHashLSH(threshold=self.threshold, num_perm=self.permutations, weights=(0.1, 0.9))
        empty = MinHash(num_perm=self.permutations)
        factors = np.random.default_rng(0).integers(0, 1 << 64, index.r, np.uint64) | np.uint64(1)
        bands = array("Q")
        for prompt in prompts:
            signature = empty.copy()
            signature.update_batch([shingle.encode() for shingle in sorted(self._shingles(prompt))])
            by_band = signature.hashvalues[: index.b * index.r].reshape(index.b, index.r)
            bands.frombytes((by_band * factors).sum(axis=1, dtype=np.uint64).tobytes())
        return np.frombuffer(bands, np.uint64).reshape(-1, index.b)

    def _shingles(self, prompt: str) -> set[str]:
        """The shingles of a prompt; a text shorter than a shingle is one shingle."""
        words = normalized_words(prompt) or [prompt]
        last = max(len(words) - self.shingle_words, 0)
        return {" ".join(words[start : start + self.shingle_words]) for start in range(last + 1)}


def _shared(bands: Int[np.ndarray, "P bands"]) -> Bool[np.ndarray, "P bands"]:
    """Which hashes another prompt has in the same band; the others propose nothing."""
    shared = np.zeros(bands.shape, np.bool_)
    for band in range(bands.shape[1]):
        _, places, counts = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        shared[:, band] = counts[places] > 1
    return shared
