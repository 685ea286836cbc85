"""A file of rollouts becomes one table, whoever asks for it and whatever interrupts it."""

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.corpus import RolloutFile, RolloutWriter
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.data.tokens.tokenized import tokenized
from reasoning_lab.graph.housekeeping import SOURCE_FILE
from reasoning_lab.graph.stat_cache import StatCache
from reasoning_lab.models.tokenizer import tokenize_rollouts, train_tokenizer
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

_WORDS = ["sum", "of", "12", "<|end|>", "therefore", "\n", "= 19", "</think>", "é", "carry"]


def _rollout(number: int, words: int) -> Rollout:
    rng = random.Random(number)
    text = "<think>\n" + " ".join(rng.choices(_WORDS, k=words)) + "\n</think>\n\n\\boxed{3}"
    problem = Problem(f"What is {number} + 1?", "3", "number", "sums", 1 + number % 2)
    own_tokens = [5, 6, 7] if number % 7 == 0 else []
    completion = Completion(own_tokens, text, truncated=number % 5 == 0)
    return Rollout(problem, completion, "3", Verdict.CORRECT, "teacher")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "accepted.parquet"
    with RolloutWriter(path) as writer:
        for start in range(0, 4200, 1400):
            writer.write([_rollout(number, 5) for number in range(start, start + 1400)])
    return path


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer([_rollout(n, 50).completion.text for n in range(20)], 300)


@pytest.mark.parametrize("part", list(TrainedPart))
def test_the_table_has_what_the_tokenizer_gives(
    part: TrainedPart, file: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    table = tokenized(RolloutFile(file), tokenizer, tmp_path, part)
    examples = tokenize_rollouts(tokenizer, list(RolloutFile(file)))
    assert len(table) == len(examples) == 4200
    for document, example in zip(table, examples, strict=True):
        expected = document_of(example, trained=part)
        assert np.array_equal(document.token_ids, expected.token_ids)
        assert np.array_equal(document.loss_mask, expected.loss_mask)
        assert document.prompt_length == expected.prompt_length
    rows = np.array([0, 17, 4095, 4096, 4199])
    chosen = tokenized(RolloutFile(file, rows), tokenizer, tmp_path, part)
    assert len(chosen) == len(rows)
    for document, row in zip(chosen, rows.tolist(), strict=True):
        assert np.array_equal(document.token_ids, table[row].token_ids)


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.arrow")}


def test_a_table_is_made_once_and_again_for_another_template(
    file: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenized(RolloutFile(file), tokenizer, tmp_path)
    first = _files(tmp_path)
    tokenized(RolloutFile(file), tokenizer, tmp_path)
    assert _files(tmp_path) == first
    template = str(tokenizer.chat_template)
    tokenizer.chat_template = template.replace("'<|'", "'? <|'")
    try:
        other = tokenized(RolloutFile(file), tokenizer, tmp_path)
    finally:
        tokenizer.chat_template = template
    assert len(_files(tmp_path)) == 2 * len(first)
    assert len(other[0]) > len(tokenized(RolloutFile(file), tokenizer, tmp_path)[0])


def test_a_table_names_its_source_which_is_hashed_once_as_part_of_an_artifact(
    file: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows = np.arange(3)
    tokenized(RolloutFile(file, rows), tokenizer, tmp_path / "free")
    (source,) = (tmp_path / "free").glob(f"*/{SOURCE_FILE}")
    assert source.read_text() == hashlib.sha256(file.read_bytes()).hexdigest()

    part = tmp_path / "distill" / "artifact" / file.name
    part.parent.mkdir(parents=True)
    shutil.copyfile(file, part)
    time.sleep(0.05)  # Until the file system's clock has moved on.
    look_up = StatCache(part.parent, lambda file: "f" * 64)
    look_up.computed(part, part.name)
    look_up.save()
    tokenized(RolloutFile(part, rows), tokenizer, tmp_path / "part")
    (source,) = (tmp_path / "part").glob(f"*/{SOURCE_FILE}")
    assert source.read_text() == "f" * 64


def test_a_damaged_table_is_named_and_made_again(
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = [
        document.token_ids.tolist()
        for document in tokenized(RolloutFile(file), tokenizer, tmp_path)
    ]
    shard = min(tmp_path.rglob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-100])
    table = tokenized(RolloutFile(file), tokenizer, tmp_path)
    assert f"{shard.parent} is damaged and is made again." in caplog.messages
    assert [document.token_ids.tolist() for document in table] == expected


_CHILD = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.tokens.tokenized import tokenized

if __name__ == "__main__":
    file, model, folder = map(Path, sys.argv[1:])
    tokenized(RolloutFile(file), AutoTokenizer.from_pretrained(model), folder, processes=2)
"""


def children_of(parent: int) -> list[str]:
    """Process ids, as text."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


@pytest.mark.long
def test_a_killed_process_loses_no_finished_shard_and_leaves_no_worker(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file, folder, rows = tmp_path / "many.parquet", tmp_path / "tokens", 5 * 4096
    with RolloutWriter(file) as writer:
        writer.write([_rollout(number, 5) for number in range(rows)])
    tokenizer.save_pretrained(tmp_path / "model")
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    child = subprocess.Popen([sys.executable, script, file, tmp_path / "model", folder])
    while not list(folder.rglob("*.arrow")):
        assert child.poll() is None, "it ended before a shard was there"
        time.sleep(0.01)
    workers = children_of(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = _files(folder)
    table = tokenized(RolloutFile(file), tokenizer, folder, processes=2)
    assert len(table) == rows
    assert finished.items() <= _files(folder).items()
    last = tokenize_rollouts(tokenizer, [_rollout(rows - 1, 5)])[0]
    assert table[rows - 1].token_ids.tolist() == [*last.prompt_ids, *last.completion_ids]
    assert workers
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives the process that started it"
        time.sleep(0.05)


@pytest.mark.long
def test_an_interrupted_process_does_not_wait_for_the_shards_that_it_has_queued(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file, folder, rows = tmp_path / "many.parquet", tmp_path / "tokens", 5 * 4096
    with RolloutWriter(file) as writer:
        writer.write([_rollout(number, 100) for number in range(4096)] * 5)

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenized(RolloutFile(file), tokenizer, folder, processes=1, on_progress=interrupt)
    # Two more were queued; the second may have begun its last part.
    assert 1 <= len(list(folder.rglob("*.arrow"))) <= 2
    assert len(tokenized(RolloutFile(file), tokenizer, folder, processes=0)) == rows
