"""Sample in shards, so that a run that was killed reads its finished shards from disk.

One shard is in memory at a time, whatever the number of problems.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.system.files import find_checksummed, rename_with_checksum
from reasoning_lab.types import Problem, Rollout


def sample_in_shards(
    folder: Path,
    problems: Iterable[Problem],
    shard_size: int,
    sample: Callable[[Sequence[Problem]], list[Rollout]],
) -> Iterator[list[Rollout]]:
    """Yield the rollouts of `problems` shard by shard; each finished shard is saved in `folder`.

    Args:
        folder: A folder for this sampling alone; it must survive a kill.
        problems: The same problems in every attempt.
        shard_size: Problems per shard; the last may hold fewer.
        sample: Samples the problems of one shard. Logprobs are not saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remaining = iter(problems)
    start = 0
    while shard := list(islice(remaining, shard_size)):
        stem = f"rollouts-{start}-{start + len(shard)}"
        start += len(shard)
        saved = find_checksummed(folder, stem)
        if saved is not None:
            rollouts = read_rollouts(saved)
        else:
            rollouts = sample(shard)
            draft = folder / "draft.parquet"
            write_rollouts(draft, rollouts)
            rename_with_checksum(draft, stem)
        yield rollouts
