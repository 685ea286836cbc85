"""Tokens a second of mid-training's data path against the bare tokenizer's, and packing's fill.

Both sides get the same real text, already in memory, in turn within each repetition: the bare
fast tokenizer one batch call on rendered prompts and on completions; ours the chat template,
tokens, masks, packing and every batch of one epoch. Prints one JSON line.

    python tests/benchmarks/packing.py gsm8k_train.jsonl
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.packing import TrainedPart, pack, packed_batch
from reasoning_lab.models.tokenizer import examples_of, train_tokenizer
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

_SEED = 0
# Where lengths are joined, a document aims at a number of characters between these.
_JOINED_CHARACTERS = (1_000, 9_000)
_ROWS_A_BATCH = 3  # The shipped stage's batch_size.


def rollout_of(prompt: str, completion: str) -> Rollout:
    problem = Problem(prompt, gold="", checker="math", family="gsm8k")
    return Rollout(problem, Completion([], completion), None, Verdict.CORRECT, "benchmark")


def joined(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One question, and its answer followed by other pairs up to a length drawn for it."""
    rng = random.Random(_SEED)
    documents = []
    rest = iter(pairs)
    for question, answer in rest:
        goal = rng.randint(*_JOINED_CHARACTERS)
        while len(answer) < goal:
            following = next(rest, None)
            if following is None:
                return documents
            answer += "\n".join(["", *following])
        documents.append((question, answer))
    return documents


def bare(tokenizer: PreTrainedTokenizerBase, prompts: list[str], completions: list[str]) -> int:
    """Tokens that one batch call makes of each; the template's marks are in `prompts`."""
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    ids += tokenizer(completions, add_special_tokens=False)["input_ids"]
    return sum(map(len, ids))


def backend(tokenizer: PreTrainedTokenizerBase, prompts: list[str], completions: list[str]) -> int:
    """The same from the library below transformers, which leaves its results in Rust."""
    library = tokenizer.backend_tokenizer
    encodings = library.encode_batch(prompts, add_special_tokens=False)
    encodings += library.encode_batch(completions, add_special_tokens=False)
    return sum(map(len, encodings))


def whole_path(
    tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout], row_tokens: int
) -> tuple[int, int, int]:
    """Makes an epoch's batches: documents dropped, tokens kept, tokens of all rows."""
    documents = examples_of(tokenizer, rollouts)
    packing = pack([document.length for document in documents], row_tokens)
    filled = 0
    for start in range(0, len(packing.rows), _ROWS_A_BATCH):
        rows = [
            [documents[index] for index in row]
            for row in packing.rows[start : start + _ROWS_A_BATCH]
        ]
        packed_batch(rows, row_tokens, tokenizer.pad_token_id, TrainedPart.COMPLETION)
        filled += sum(document.length for row in rows for document in row)
    return len(packing.dropped), filled, len(packing.rows) * row_tokens


def measure(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    row_tokens: int,
    repetitions: int,
) -> dict[str, float]:
    rollouts = [rollout_of(*pair) for pair in pairs]
    prompts = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        )
        for prompt, _ in pairs
    ]
    completions = [completion for _, completion in pairs]
    tokens = bare(tokenizer, prompts, completions)
    dropped, filled, held = whole_path(tokenizer, rollouts, row_tokens)
    taken: dict[str, list[float]] = {"bare": [], "backend": [], "ours": []}
    for _ in range(repetitions):
        begin = time.perf_counter()
        bare(tokenizer, prompts, completions)
        taken["bare"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        backend(tokenizer, prompts, completions)
        taken["backend"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        whole_path(tokenizer, rollouts, row_tokens)
        taken["ours"].append(time.perf_counter() - begin)
    median = {side: statistics.median(times) for side, times in taken.items()}
    return {
        "row_tokens": row_tokens,
        "documents": len(pairs),
        "dropped": dropped,
        "tokens": tokens,
        **{f"{side}_tokens_per_s": round(tokens / seconds) for side, seconds in median.items()},
        "ratio_to_bare": round(median["bare"] / median["ours"], 3),
        "ratio_to_bare_of_minima": round(min(taken["bare"]) / min(taken["ours"]), 3),
        "ratio_to_backend": round(median["backend"] / median["ours"], 3),
        "packing_frac": round(filled / held, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="JSON lines with question and answer")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.data.read_text().splitlines()]
    short = [(line["question"], line["answer"]) for line in lines]
    results = []
    for vocab_size in (512, 8192):
        tokenizer = train_tokenizer((text for pair in short for text in pair), vocab_size)
        for pairs, row_tokens in ((short, 256), (joined(short), 4096)):
            result = measure(tokenizer, pairs, row_tokens, arguments.repetitions)
            results.append({"vocab_size": vocab_size, **result})
    print(json.dumps({"cpus": os.cpu_count(), "results": results}))


if __name__ == "__main__":
    main()
