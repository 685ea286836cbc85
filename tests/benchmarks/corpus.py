"""What a large corpus costs: memory, tokenising, packing and gathering, against bare tools and TRL.

    python -m tests.benchmarks.corpus [ROW ...] [--tokens 100_000_000] [--processes 2]

Prints one JSON line a row; memory is `RssAnon`, so pages of a file, which the system may drop, do
not count. Rows:

- `train-100M`, `train-100M-short`: mid-training steps on so many tokens, in documents of 200 to
  7,000 tokens and of a tenth; `anonymous_bytes` is the peak above that of a corpus of one row.
- `tokenise`: text to table, `ratio` to the bare fast tokenizer in as many processes.
- `second-start`: `seconds` to find and open a finished table.
- `gather`: `ratio` of a micro-batch's gathering to a step of the 30M model on it.
- `plan-10M-4096`, `plan-10M-16384`: rows and epochs of ten million lengths; `ratio` is the fill.
- `curate`: every shipped step on `--rollouts` rollouts and on half as many; `ratio` is the exponent
  of time.
- `prefer`: pairs of 200,000 rollouts of about 1,000 characters, as `prefer_teacher` makes them.
- `prompts`: the prompts of 20 steps of RL with dynamic sampling, from 200,000 problems.
- `evaluate`: 200,000 completions of 250 tokens, written, read for a report, and verified again.
- `prepare-ours`, `prepare-trl`: tokenise and pack the same 20,000 documents; `ratio` of seconds and
  `memory_ratio` of the peaks of all processes, ours to TRL's, on the first.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.tokens.batches import step_batches
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.data.tokens.table import Overlong
from reasoning_lab.data.tokens.tokenized import tokenized
from reasoning_lab.kernels.logprobs import mean_logprob
from reasoning_lab.models.policy import build_policy, load_policy, save_policy
from reasoning_lab.models.tokenizer import prompt_texts, train_tokenizer
from reasoning_lab.training.next_token_training import document_batches
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

from .curation import curated
from .footprint import in_child, peak_anonymous, resident
from .lists import WORDS, evaluate, prefer, prompts, write_all
from .pairs.workload import SIZES, write_workload
from .preparation import prepared

_LONG, _SHORT = (200, 7000), (20, 700)
_ROW_TOKENS = 4096


def rollouts(tokens: int, lengths: tuple[int, int], seed: int = 0) -> Iterator[Rollout]:
    """About so many tokens of text, where a word is about a token."""
    rng = random.Random(seed)
    number = written = 0
    while written < tokens:
        words = rng.randint(*lengths)
        text = "<think>\n" + " ".join(rng.choices(WORDS, k=words)) + "\n</think>\n\n\\boxed{19}"
        problem = Problem(f"What is {number} plus 12?", "19", "number", "sums")
        yield Rollout(problem, Completion([], text), "19", Verdict.CORRECT, "benchmark")
        number, written = number + 1, written + words


def write_corpus(path: Path, tokens: int, lengths: tuple[int, int]) -> Path:
    return write_all(path, rollouts(tokens, lengths))


def train_peak(file: Path, model: Path, tables: Path, steps: int) -> int:
    """Peak of a process that reads a corpus as mid-training does, and trains a small policy."""
    policy, tokenizer = load_policy(model, "float32")
    policy.train()
    with peak_anonymous() as peak:
        documents = tokenized(RolloutFile(file), tokenizer, tables)
        documents = documents.pieces(_ROW_TOKENS, Overlong.SPLIT)
        rows = pack(documents.lengths, _ROW_TOKENS)
        plan = step_batches(np.full(len(rows), _ROW_TOKENS), 2, max(steps, len(rows)), 0)
        batches = iter(document_batches(documents, rows, plan, 1))
        optimizer = torch.optim.AdamW(policy.parameters())
        for _ in range(steps):
            (-mean_logprob(policy, next(batches).tokens)).backward()
            optimizer.step()
            optimizer.zero_grad()
        return peak()


class Bench:
    """The files that several rows share, made when one asks for them."""

    def __init__(self, folder: Path, tokens: int, processes: int) -> None:
        self._folder, self._tokens, self._processes = folder, tokens, processes
        self._tables = folder / "tokens"
        self._model = folder / "model"
        texts = [rollout.completion.text for rollout in rollouts(200_000, _SHORT)]
        tokenizer = train_tokenizer(texts, 512)
        save_policy(
            build_policy(SIZES["tiny"].architecture, tokenizer, "float32", 0),
            tokenizer,
            self._model,
        )
        self._tokenizer = AutoTokenizer.from_pretrained(self._model)

    def _corpus(self, name: str, tokens: int, lengths: tuple[int, int]) -> Path:
        path = self._folder / f"{name}-{tokens}.parquet"
        return path if path.exists() else write_corpus(path, tokens, lengths)

    def _table(self, file: Path) -> Any:
        rollouts = RolloutFile(file)
        return tokenized(rollouts, self._tokenizer, self._tables, processes=self._processes)

    def train(self, name: str, lengths: tuple[int, int], steps: int = 20) -> dict[str, Any]:
        file = self._corpus(name, self._tokens, lengths)
        one_row = self._corpus("one-row", 4 * _ROW_TOKENS, lengths)
        table = self._table(file)
        self._table(one_row)
        start = time.perf_counter()
        peak, without = (
            in_child(train_peak, path, self._model, self._tables, steps) for path in (file, one_row)
        )
        return {
            "tokens": int(table.lengths.sum()),
            "documents": len(table),
            "anonymous_bytes": peak - without,
            "seconds": time.perf_counter() - start,
        }

    def tokenise(self) -> dict[str, Any]:
        file = self._corpus("tokenise", self._tokens // 5, _LONG)
        batches = bare_batches(self._tokenizer, rollouts(self._tokens // 5, _LONG))
        with ProcessPoolExecutor(
            self._processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_bare,
            initargs=(self._model,),
        ) as pool:
            list(pool.map(bare_tokens, [["warm"]] * self._processes))
            start = time.perf_counter()
            sum(pool.map(bare_tokens, batches))
            bare_s = time.perf_counter() - start
        start = time.perf_counter()
        table = self._table(file)
        seconds = time.perf_counter() - start
        return {
            "tokens": int(table.lengths.sum()),
            "documents": len(table),
            "seconds": seconds,
            "bare_seconds": bare_s,
            "ratio": bare_s / seconds,
        }

    def second_start(self) -> dict[str, Any]:
        self._table(self._corpus("train-100M", self._tokens, _LONG))
        start = time.perf_counter()
        table = self._table(self._corpus("train-100M", self._tokens, _LONG))
        documents = table.pieces(_ROW_TOKENS, Overlong.SPLIT)
        pack(documents.lengths, _ROW_TOKENS)
        return {"tokens": int(table.lengths.sum()), "seconds": time.perf_counter() - start}

    def gather(self) -> dict[str, Any]:
        table = self._table(self._corpus("tokenise", self._tokens // 5, _LONG))
        documents = table.pieces(512, Overlong.SPLIT)
        rows = pack(documents.lengths, 512)
        plan = step_batches(np.full(len(rows), 512), 4, 64, 0)
        start = time.perf_counter()
        batches = list(document_batches(documents, rows, plan, 1))
        gather_s = (time.perf_counter() - start) / len(batches)
        write_workload(SIZES["30m"], self._folder / "30m")
        model, _ = load_policy(self._folder / "30m" / "policy", "float32")
        start = time.perf_counter()
        for batch in batches[:3]:
            (-mean_logprob(model, batch.tokens)).backward()
        step_s = (time.perf_counter() - start) / 3
        return {"tokens": 4 * 512, "seconds": gather_s, "ratio": gather_s / step_s}


_bare: PreTrainedTokenizerBase


def start_bare(model: Path) -> None:
    global _bare
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _bare = AutoTokenizer.from_pretrained(model)


def bare_tokens(texts: Sequence[str]) -> int:
    ids: list[list[int]] = _bare(list(texts), add_special_tokens=False)["input_ids"]
    return sum(map(len, ids))


def bare_batches(
    tokenizer: PreTrainedTokenizerBase, some: Iterator[Rollout], size: int = 256
) -> list[list[str]]:
    """Rendered prompts with their completions, as the bare tokenizer is given them."""
    every = list(some)
    prompts = prompt_texts(tokenizer, [rollout.problem.prompt for rollout in every])
    texts = [
        prompt + rollout.completion.text for prompt, rollout in zip(prompts, every, strict=True)
    ]
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def plan_peak(row_tokens: int, count: int) -> dict[str, Any]:
    lengths = np.random.default_rng(0).integers(200, row_tokens + 1, count, dtype=np.int32)
    before = resident("RssAnon")
    with peak_anonymous() as peak:
        start = time.perf_counter()
        rows = pack(lengths, row_tokens)
        sums = rows.sums(lengths)
        step_batches(sums, 64, len(rows) // 64, 0)
        seconds = time.perf_counter() - start
        return {
            "tokens": int(lengths.sum(dtype=np.int64)),
            "documents": count,
            "anonymous_bytes": peak() - before,
            "seconds": seconds,
            "ratio": float(sums.mean() / row_tokens),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="all by default")
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench(folder, options.tokens, options.processes)
        rows: dict[str, Callable[[], dict[str, Any]]] = {
            "train-100M": partial(bench.train, "train-100M", _LONG),
            "train-100M-short": partial(bench.train, "train-100M-short", _SHORT),
            "tokenise": bench.tokenise,
            "second-start": bench.second_start,
            "gather": bench.gather,
            "plan-10M-4096": partial(in_child, plan_peak, 4096, 10_000_000),
            "plan-10M-16384": partial(in_child, plan_peak, 16_384, 10_000_000),
            "curate": partial(curated, folder, options.rollouts),
            "prefer": partial(prefer, folder),
            "prompts": partial(prompts, folder),
            "evaluate": partial(evaluate, folder, folder / "model"),
        }
        for name, work in rows.items():
            if not options.rows or name in options.rows:
                print(json.dumps({"name": name, **work()}), flush=True)
        if not options.rows or "prepare" in options.rows:
            file = write_corpus(folder / "prepare.parquet", 20_000 * 1000, (500, 1500))
            for row in prepared(file, folder, options.processes):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
