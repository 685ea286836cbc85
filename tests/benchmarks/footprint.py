"""Peak memory of real training steps, compared with the estimate of `plan`.

`python -m tests.benchmarks.footprint` trains SmolLM2-135M's architecture with random weights in
float32, through the lab's own module and Lightning, with fused AdamW: each row of the table in a
separate process. Measured is the process's resident peak (VmHWM) less what it had before the
model was made; the framework is not in the prediction.
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
ADAMW = "torch.optim.AdamW"
# Rows, tokens of each, and whether layers are computed again.
CASES = [(2, 256, 0), (4, 512, 0), (2, 256, 1), (4, 512, 1)]
STEPS = 3


def resident(line: str) -> int:
    """Bytes of this process in `line` of /proc/self/status."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0])


@contextmanager
def peak_anonymous() -> Iterator[Callable[[], int]]:
    """The most anonymous memory within, in bytes, looked at every few milliseconds."""
    most, over = resident("RssAnon"), threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, resident("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: max(most, resident("RssAnon"))
    finally:
        over.set()
        thread.join()


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """In a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as child:
        return child.submit(work, *arguments).result()


def train(
    policy: Any,
    batch: Callable[[object], Any],
    steps: int,
    accelerator: str,
    callbacks: Sequence[Any] = (),
) -> None:
    """So many steps of fused AdamW, through the lab's own module and Lightning, on one device."""
    import pytorch_lightning as pl

    from reasoning_lab.config.optimization import AdamWConfig, OptimizationConfig
    from reasoning_lab.system import malloc
    from reasoning_lab.training.micro_batches import PlannedBatches
    from reasoning_lab.training.next_token_training import NextTokenModule

    optimization = OptimizationConfig(AdamWConfig(), learning_rate=1e-3, length=f"{steps} steps")
    module = NextTokenModule(policy, optimization, "footprint")
    with (
        tempfile.TemporaryDirectory() as folder,
        malloc.tuned_for_training(policy.get_memory_footprint()),
    ):
        pl.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=1,
            callbacks=[*callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            default_root_dir=folder,
        ).fit(module.train(), PlannedBatches(range(steps), batch))


def measure(rows: int, tokens: int, checkpointed: int) -> int:
    """Train three steps in this process; the peak above what it had before."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from reasoning_lab.data.tokens.batches import token_batch
    from reasoning_lab.data.tokens.documents import TrainedPart, document_of
    from reasoning_lab.kernels.binding import bind_kernels
    from reasoning_lab.training.micro_batches import MicroBatch
    from reasoning_lab.types import Example

    options = {key: value for key, value in ARCHITECTURE.items() if key != "model_type"}
    config = AutoConfig.for_model("llama", pad_token_id=0, **options)
    # What the first use of each operation loads is the framework's, not the step's.
    torch.nn.functional.linear(
        torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)
    ).sum().backward()
    before = resident("VmRSS")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    bind_kernels(model)
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})

    def batch(index: object) -> MicroBatch:
        token_ids = torch.randint(3, 49152, (rows, tokens)).tolist()
        part = TrainedPart.SEQUENCE
        documents = [document_of(Example([], ids), trained=part) for ids in token_ids]
        return MicroBatch(tokens=token_batch(documents))

    train(model, batch, STEPS, "cpu")
    return resident("VmHWM") - before


def main() -> None:
    """Print the table."""
    from reasoning_lab.config.hardware import HardwareConfig
    from reasoning_lab.models.footprint import footprint

    print("| rows x tokens | checkpointing | measured GB | estimated GB | ratio |")
    print("| :-- | :-- | --: | --: | --: |")
    for rows, tokens, checkpointed in CASES:
        words = [sys.executable, "-m", __spec__.name, str(rows), str(tokens), str(checkpointed)]
        child = subprocess.run(words, capture_output=True, text=True, check=True)
        measured = json.loads(child.stdout.splitlines()[-1])
        hardware = HardwareConfig(activation_checkpointing=bool(checkpointed))
        estimate = footprint(ARCHITECTURE, 0, "float32", ADAMW, hardware)
        assert estimate is not None
        peak = estimate.peak(rows * tokens)
        print(
            f"| {rows} x {tokens} | {'yes' if checkpointed else 'no'} | {measured / 1e9:.2f} | "
            f"{peak / 1e9:.2f} | {peak / measured:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
    else:
        main()
