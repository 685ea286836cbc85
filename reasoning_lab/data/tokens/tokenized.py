"""Tokenise a file of rollouts once, for all stages and processes that read it alike.

The table lies below a folder under a key of all that made it: the file's content, the chosen rows,
the tokenizer with its template, and which tokens are trained. One process makes it while the
others wait. It is made in shards, each renamed into place, so a run that was killed goes on with
those that are there.
"""

import hashlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    as_completed,
    wait,
)
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.rollout_index import EARLIER_MESSAGES, earlier_messages_of
from reasoning_lab.data.tokens.documents import Document, TrainedPart, document_of
from reasoning_lab.data.tokens.table import COLUMNS, TokenTable, arrow_table
from reasoning_lab.graph.housekeeping import SOURCE_FILE
from reasoning_lab.graph.record import digest
from reasoning_lab.graph.stat_cache import sha256_of
from reasoning_lab.graph.store import lock_file
from reasoning_lab.models.tokenizer import tokenize, tokenizer_identity
from reasoning_lab.system.files import flush_and_rename, remove, write_atomically
from reasoning_lab.types import Completion, model_prompt

log = logging.getLogger(__name__)

# Raised when the same text is given other tokens.
_VERSION = 2
# Characters that one call of the tokenizer reads: their tokens are Python integers for a while.
_CALL_CHARACTERS = 1 << 16
# Compressed; a process needs seconds to start, in which this one tokenises as much.
_FEW_BYTES = 8 << 20
_SHARD_ROWS = 4096
_READ = ["prompt", EARLIER_MESSAGES, "text", "token_ids", "truncated"]
_SUMMARY = "table.json"


def tokenized(
    rollouts: RolloutFile,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    trained: TrainedPart = TrainedPart.COMPLETION,
    processes: int | None = None,
    on_progress: Callable[[int], object] = lambda rollouts: None,
) -> TokenTable:
    """The documents of rollouts, in their order.

    Args:
        rollouts: From a file.
        tokenizer: The student's.
        folder: Where tables are kept.
        trained: Which tokens carry loss.
        processes: How many tokenise; None = as many as there are cores, or none besides this one
            for a short text.
        on_progress: Called with the number of rollouts of each shard that is there.
    """
    rows = rollouts.rows
    # Every process of a stage asks for it.
    source = sha256_of(rollouts.path, rollouts.path.parent)
    key = digest(
        {
            "version": _VERSION,
            "file": source,
            "rows": None if rows is None else hashlib.sha256(rows.tobytes()).hexdigest(),
            "tokenizer": tokenizer_identity(tokenizer),
            "trained": str(trained),
        }
    )[:16]
    table = folder / key
    if not _is_finished(table):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_file(table)):
            if not _is_finished(table):
                table.mkdir(exist_ok=True)
                _remove_damaged(table)
                (table / SOURCE_FILE).write_text(source, encoding="utf-8")
                _write(rollouts, tokenizer, table, trained, processes, on_progress)
    return _read(table)


def _is_finished(table: Path) -> bool:
    """Whether all shards are there in the sizes that they were written in."""
    try:
        sizes = json.loads((table / _SUMMARY).read_text(encoding="utf-8"))["shard_bytes"]
        return all((table / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _remove_damaged(table: Path) -> None:
    """Remove the shards of a table that was finished once."""
    if (table / _SUMMARY).exists():
        log.warning("%s is damaged and is made again.", table)
        for entry in table.iterdir():
            remove(entry)


def _read(table: Path) -> TokenTable:
    shards = sorted(table.glob("*.arrow"))
    if not shards:
        return TokenTable.of_documents([])
    from datasets import Dataset, concatenate_datasets

    dataset = concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])
    return TokenTable.of(dataset.data.table)


def _write(
    rollouts: RolloutFile,
    tokenizer: PreTrainedTokenizerBase,
    table: Path,
    trained: TrainedPart,
    processes: int | None,
    on_progress: Callable[[int], object],
) -> None:
    if processes is None:
        few = rollouts.path.stat().st_size < _FEW_BYTES
        processes = 0 if few else len(os.sched_getaffinity(0))
    for shard_rows in _mapped(_shards(rollouts, table), tokenizer, trained, processes):
        on_progress(shard_rows)
    sizes = {shard.name: shard.stat().st_size for shard in sorted(table.glob("*.arrow"))}
    summary = json.dumps({"shard_bytes": sizes})
    write_atomically(table / _SUMMARY, lambda draft: draft.write_text(summary, encoding="utf-8"))


@dataclass(frozen=True)
class _Shard:
    """Rollouts, which a worker reads for itself, and the table that they become."""

    rollouts: RolloutFile
    path: Path


def _shards(rollouts: RolloutFile, table: Path) -> Iterator[_Shard]:
    count = len(rollouts)
    for start in range(0, count, _SHARD_ROWS):
        rows = np.arange(start, min(start + _SHARD_ROWS, count))
        yield _Shard(rollouts.select(rows), table / f"{start:010d}.arrow")


def _mapped(
    shards: Iterable[_Shard],
    tokenizer: PreTrainedTokenizerBase,
    trained: TrainedPart,
    processes: int,
) -> Iterator[int]:
    """Write each shard that is not there yet; yields its number of rows, when it is done."""
    if not processes:
        for shard in shards:
            yield _write_shard(shard, tokenizer, trained)
        return
    # A fork of a process that has threads may hang.
    context = get_context("spawn")
    stopped = context.Event()
    with ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=_start_worker,
        initargs=(tokenizer, trained, stopped),
    ) as pool:
        running: set[Future[int]] = set()
        try:
            for shard in shards:
                running.add(pool.submit(_write_in_worker, shard))
                if len(running) > 2 * processes:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in finished)
            yield from (future.result() for future in as_completed(running))
        except BaseException:
            # The pool waits for every shard that it has begun or queued.
            stopped.set()
            raise


_worker: tuple[PreTrainedTokenizerBase, TrainedPart, Event]


def _start_worker(tokenizer: PreTrainedTokenizerBase, trained: TrainedPart, stopped: Event) -> None:
    global _worker
    _worker = tokenizer, trained, stopped
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches every process of a terminal; the one that started this decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Otherwise a worker whose parent is killed waits for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write_in_worker(shard: _Shard) -> int:
    return _write_shard(shard, *_worker)


def _write_shard(
    shard: _Shard,
    tokenizer: PreTrainedTokenizerBase,
    trained: TrainedPart,
    stopped: Event | None = None,
) -> int:
    """Write it unless it is there, and return its rows; gives up when `stopped` is set."""
    if shard.path.exists():
        return len(shard.rollouts)
    draft = shard.path.with_suffix(".draft")
    # The form that `datasets` maps into memory, without its import, which each worker would hold.
    with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_stream(file, COLUMNS) as writer:
        for rows in shard.rollouts.batches(_READ):
            start = 0
            for stop in _call_ends(rows):
                if stopped is not None and stopped.is_set():
                    return 0
                documents = _documents(rows.slice(start, stop - start), tokenizer, trained)
                writer.write_table(arrow_table(documents))
                start = stop
    flush_and_rename(draft, shard.path)
    return len(shard.rollouts)


def _call_ends(rows: pa.RecordBatch) -> list[int]:
    """Where calls of the tokenizer end, so that each reads about `_CALL_CHARACTERS`."""
    characters = pc.add(pc.utf8_length(rows["prompt"]), pc.utf8_length(rows["text"])).to_numpy()
    earlier = [
        sum(len(turn["content"]) for turn in turns or ())
        for turns in rows[EARLIER_MESSAGES].to_pylist()
    ]
    calls = np.cumsum(characters + np.array(earlier, np.int64)) // _CALL_CHARACTERS
    return [*(np.flatnonzero(np.diff(calls)) + 1).tolist(), len(rows)]


def _documents(
    rows: pa.RecordBatch, tokenizer: PreTrainedTokenizerBase, trained: TrainedPart
) -> list[Document]:
    columns = rows.to_pydict()
    completions = [
        Completion(token_ids, text, truncated=truncated)
        for token_ids, text, truncated in zip(
            columns["token_ids"], columns["text"], columns["truncated"], strict=True
        )
    ]
    prompts = [
        model_prompt(prompt, earlier_messages_of(turns))
        for prompt, turns in zip(columns["prompt"], columns[EARLIER_MESSAGES], strict=True)
    ]
    examples = tokenize(tokenizer, prompts, completions)
    return [document_of(example, trained=trained) for example in examples]
