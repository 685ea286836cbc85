"""Long sampling in shards: what a killed run had finished is read, not sampled again.

One shard is in memory at a time, whatever the number of problems.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.system.files import find_checksummed, rename_with_checksum
from reasoning_lab.types import Problem, Rollout


def in_shards(
    folder: Path,
    problems: Iterable[Problem],
    shard_size: int,
    make: Callable[[Sequence[Problem]], list[Rollout]],
) -> Iterator[list[Rollout]]:
    """The rollouts of `problems`, shard by shard, each kept in `folder` once it is made.

    Args:
        folder: Belongs to this sampling alone and outlives a kill.
        problems: The same in every attempt.
        shard_size: Problems a shard; the last may hold fewer.
        make: Samples the problems of one shard. Logprobs are not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remaining = iter(problems)
    start = 0
    while shard := list(islice(remaining, shard_size)):
        stem = f"rollouts-{start}-{start + len(shard)}"
        start += len(shard)
        kept = find_checksummed(folder, stem)
        if kept is not None:
            rollouts = read_rollouts(kept)
        else:
            rollouts = make(shard)
            draft = folder / "draft.parquet"
            write_rollouts(draft, rollouts)
            rename_with_checksum(draft, stem)
        yield rollouts
