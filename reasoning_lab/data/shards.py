"""Long sampling in shards: what a killed run had finished is read, not sampled again."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.files import intact, remove, seal
from reasoning_lab.types import Rollout

log = logging.getLogger(__name__)


def in_shards(
    folder: Path, count: int, shard_size: int, make: Callable[[int, int], list[Rollout]]
) -> Iterator[list[Rollout]]:
    """The rollouts of `count` problems, shard by shard, each kept in `folder` once it is made.

    Args:
        folder: Belongs to this sampling alone and outlives a kill.
        count: Problems.
        shard_size: Problems a shard; the last may hold fewer.
        make: Called as `make(start, stop)`; samples these problems. Logprobs are not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, shard_size):
        stop = min(start + shard_size, count)
        stem = f"rollouts-{start}-{stop}"
        rollouts = _read(folder, stem)
        if rollouts is None:
            rollouts = make(start, stop)
            draft = folder / "draft.parquet"
            write_rollouts(draft, rollouts)
            seal(draft, stem)
        yield rollouts


def _read(folder: Path, stem: str) -> list[Rollout] | None:
    for path in folder.glob(f"{stem}-*"):
        if intact(path):
            return read_rollouts(path)
        log.warning("%s is damaged; sampling its problems again.", path)
        remove(path)
    return None
