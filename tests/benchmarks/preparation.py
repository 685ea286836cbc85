"""Tokenise and pack one corpus, as we do and as TRL does: rows of `corpus`.

    python -m tests.benchmarks.preparation ours|trl CORPUS MODEL FOLDER PROCESSES

Each side runs in a process of its own. Memory is the anonymous memory of it and its workers, in
which a page that several share counts once, above what the process had when it was ready.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROW_TOKENS = 4096


def anonymous_bytes(process: str = "self") -> int:
    """Of a process and all that it started, from `Pss_Anon`."""
    place, total = Path("/proc") / process, 0
    try:
        text = (place / "smaps_rollup").read_text()
        total = 1024 * int(text.split("Pss_Anon:")[1].split()[0])
        for children in place.glob("task/*/children"):
            total += sum(map(anonymous_bytes, children.read_text().split()))
    except (OSError, IndexError):  # It has just ended.
        pass
    return total


@contextmanager
def peak_anonymous() -> Iterator[Callable[[], int]]:
    """The most within above what there was before, looked at ten times a second."""
    before, over = anonymous_bytes(), threading.Event()
    most = before

    def watch() -> None:
        nonlocal most
        while not over.wait(0.1):
            most = max(most, anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: max(most, anonymous_bytes()) - before
    finally:
        over.set()
        thread.join()


def prepare_ours(file: Path, model: Path, folder: Path, processes: int) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from reasoning_lab.data.corpus import RolloutFile
    from reasoning_lab.data.tokens.packing import pack
    from reasoning_lab.data.tokens.table import Overlong
    from reasoning_lab.data.tokens.tokenized import tokenized

    tokenizer = AutoTokenizer.from_pretrained(model)
    with peak_anonymous() as peak:
        start = time.perf_counter()
        table = tokenized(RolloutFile(file), tokenizer, folder, processes=processes)
        documents = table.pieces(_ROW_TOKENS, Overlong.TRUNCATE)
        rows = pack(documents.lengths, _ROW_TOKENS)
        return {
            "tokens": int(documents.lengths.sum()),
            "documents": len(documents),
            "rows": len(rows),
            "seconds": time.perf_counter() - start,
            "anonymous_bytes": peak(),
        }


def prepare_trl(file: Path, model: Path, folder: Path, processes: int) -> dict[str, Any]:
    """`SFTTrainer` with packing, from prompts and completions, up to its packed dataset."""
    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from reasoning_lab.data.corpus import RolloutFile
    from reasoning_lab.models.tokenizer import prompt_texts

    tokenizer = AutoTokenizer.from_pretrained(model)
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    policy = LlamaForCausalLM(LlamaConfig(vocab_size=512, num_hidden_layers=1, **sizes))

    def rows() -> Iterator[dict[str, str]]:
        for rollout in RolloutFile(file):
            (prompt,) = prompt_texts(tokenizer, [rollout.problem.prompt])
            yield {"prompt": prompt, "completion": rollout.completion.text}

    dataset = datasets.Dataset.from_generator(rows, cache_dir=str(folder))
    with peak_anonymous() as peak:
        start = time.perf_counter()
        trainer = SFTTrainer(
            model=policy,
            args=SFTConfig(
                output_dir=str(folder),
                packing=True,
                max_length=_ROW_TOKENS,
                dataset_num_proc=processes,
                use_cpu=True,
                report_to="none",
                padding_free=True,
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
        )
        return {
            "rows": len(trainer.train_dataset),  # type: ignore[arg-type]  # A `Dataset`.
            "documents": len(dataset),
            "seconds": time.perf_counter() - start,
            "anonymous_bytes": peak(),
        }


def prepared(file: Path, folder: Path, processes: int) -> Iterator[dict[str, Any]]:
    """Both sides' rows; the tokenizer is in `folder / "model"`."""

    def side(name: str) -> dict[str, Any]:
        command = [sys.executable, "-m", __name__, name, str(file), str(folder / "model")]
        command += [str(folder / name), str(processes)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
        return answer

    ours, trl = side("ours"), side("trl")
    ratios = {
        "ratio": ours["seconds"] / trl["seconds"],
        "memory_ratio": ours["anonymous_bytes"] / trl["anonymous_bytes"],
    }
    yield {"name": "prepare-ours", **ours, **ratios}
    yield {"name": "prepare-trl", **trl}


if __name__ == "__main__":
    _, which, corpus, model_folder, out, number = sys.argv
    prepare = {"ours": prepare_ours, "trl": prepare_trl}[which]
    print(json.dumps(prepare(Path(corpus), Path(model_folder), Path(out), int(number))))
