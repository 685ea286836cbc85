"""Tokens a second of mid-training's data path against the bare tokenizer's, and packing's fill.

Both sides get the same text, already in memory, in turn within each repetition: the bare fast
tokenizer one batch call on rendered prompts and one on completions; ours the chat template,
tokens, masks, packing and every batch of one epoch. Documents longer than a row are left out
beforehand. Prints one JSON line; run it from the repository's root.

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

from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerBase

from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.models.tokenizer import tokenize_rollouts, train_tokenizer
from reasoning_lab.types import Completion, Problem, Rollout, Split, Verdict

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
    documents: list[tuple[str, str]] = []
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


def recipe(count: int) -> list[tuple[str, str]]:
    """The kind of problem and worked solution that the tiny recipe distills."""
    data = OmegaConf.load(Path("conf/data/tiny.yaml"))
    source = ReasoningGymConfig(data.families, data.test_frac, data.validation_frac)
    teacher = ProceduralTeacherConfig(noticed_slip_rate=0.03, unnoticed_slip_rate=0.02)
    problems = source.problems(Split.TRAIN, [1, 2, 3], count // 2, _SEED)
    return [(one.prompt, text) for one in problems for text in teacher.texts(one, 2, _SEED)]


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
) -> float:
    """Make an epoch's batches; the share of their tokens that is not padding."""
    documents = tokenize_rollouts(tokenizer, rollouts)
    packing = pack([document.length for document in documents], row_tokens)
    filled = 0
    for start in range(0, len(packing.rows), _ROWS_A_BATCH):
        rows = [
            [documents[index] for index in row]
            for row in packing.rows[start : start + _ROWS_A_BATCH]
        ]
        completion_batch([document for row in rows for document in row])
        filled += sum(document.length for row in rows for document in row)
    return filled / (len(packing.rows) * row_tokens)


def measure(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    row_tokens: int,
    repetitions: int,
) -> dict[str, float]:
    rollouts = [rollout_of(*pair) for pair in pairs]
    lengths = [document.length for document in tokenize_rollouts(tokenizer, rollouts)]
    fitting = [number for number, length in enumerate(lengths) if length <= row_tokens]
    rollouts = [rollouts[number] for number in fitting]
    pairs = [pairs[number] for number in fitting]
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
    packing_frac = whole_path(tokenizer, rollouts, row_tokens)
    seconds_by_side: dict[str, list[float]] = {"bare": [], "backend": [], "ours": []}
    for _ in range(repetitions):
        begin = time.perf_counter()
        bare(tokenizer, prompts, completions)
        seconds_by_side["bare"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        backend(tokenizer, prompts, completions)
        seconds_by_side["backend"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        whole_path(tokenizer, rollouts, row_tokens)
        seconds_by_side["ours"].append(time.perf_counter() - begin)
    median = {side: statistics.median(times) for side, times in seconds_by_side.items()}
    return {
        "row_tokens": row_tokens,
        "documents": len(pairs),
        "left_out": len(lengths) - len(pairs),
        "tokens": tokens,
        **{f"{side}_tokens_per_s": round(tokens / seconds) for side, seconds in median.items()},
        "ratio_to_bare": round(median["bare"] / median["ours"], 3),
        "ratio_to_bare_of_minima": round(
            min(seconds_by_side["bare"]) / min(seconds_by_side["ours"]), 3
        ),
        "ratio_to_backend": round(median["backend"] / median["ours"], 3),
        "packing_frac": round(packing_frac, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="JSON lines with question and answer")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=3000, help="lines of data to read")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.data.read_text().splitlines()]
    pairs = [(line["question"], line["answer"]) for line in lines[: arguments.pairs]]
    recipe_pairs, chains = recipe(2 * len(pairs)), joined(pairs)
    results = []
    for name, documents, trained_on, vocab_size, row_tokens in (
        ("recipe", recipe_pairs, recipe_pairs, 512, 256),
        ("pairs", pairs, pairs, 512, 256),
        ("pairs", pairs, pairs, 8192, 256),
        ("pairs", pairs, pairs, 8192, 4096),
        ("chains", chains, pairs, 512, 4096),
        ("chains", chains, pairs, 8192, 4096),
    ):
        tokenizer = train_tokenizer((text for pair in trained_on for text in pair), vocab_size)
        result = measure(tokenizer, documents, row_tokens, arguments.repetitions)
        results.append({"documents_of": name, "vocab_size": vocab_size, **result})
    print(json.dumps({"cpus": os.cpu_count(), "results": results}))


if __name__ == "__main__":
    main()
