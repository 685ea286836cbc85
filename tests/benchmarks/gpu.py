"""Training on one GPU: tokens a second, share of the device's peak, memory against `plan`.

`python -m tests.benchmarks.gpu` trains models of `conf/model` with random weights on packed rows,
through the lab's own module and Lightning, with fused AdamW: each row of the table in a process of
its own. Documents are 64 to 4,096 tokens long, log-uniformly. MFU counts attention to the tokens
of one's own document alone. Memory is torch's own peak; CUDA's context is not in it.
"""

import json
import math
import random
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

from .footprint import ADAMW, train

# Model, dtype, tokens of a micro-batch, whether layers are computed again, and what is left out of
# what the lab has of its own: joined documents, norms and rotations, larger parts of logits.
CASES = [
    ("smollm2_135m", "mixed", 16_384, 0, "nothing"),
    ("phi4_mini", "bfloat16", 16_384, 1, "nothing"),
    ("qwen2_5_1_5b", "mixed", 8_192, 0, "nothing"),
    ("smollm2_135m", "mixed", 16_384, 0, "norms"),
    ("phi4_mini", "bfloat16", 16_384, 1, "norms"),
    ("smollm2_135m", "mixed", 16_384, 0, "joined"),
    ("phi4_mini", "bfloat16", 16_384, 1, "joined"),
    ("smollm2_135m", "mixed", 16_384, 0, "chunks"),
    ("phi4_mini", "bfloat16", 16_384, 1, "chunks"),
]
WARM, STEPS = 3, 8


def architecture_of(model: str) -> dict[str, Any]:
    """As `conf/model` has it; of positions, whose factors a checkpoint brings, the default."""
    from omegaconf import OmegaConf

    from reasoning_lab.config.folder import CONF

    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{model}.yaml"))
    architecture = {"vocab_size": config["vocab_size"], **config["architecture"]}
    architecture.pop("rope_scaling", None)
    return architecture


def documents_of(tokens: int) -> list[int]:
    """Lengths that together are `tokens`; the same in each process."""
    rng, lengths = random.Random(0), list[int]()
    while sum(lengths) < tokens:
        length = round(math.exp(rng.uniform(math.log(64), math.log(4096))))
        lengths.append(min(length, tokens - sum(lengths)))
    return lengths


def measure(model: str, dtype: str, tokens: int, checkpointed: int, without: str) -> dict[str, Any]:
    """Train in this process; seconds of the median step and bytes of the peak."""
    import pytorch_lightning as pl
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from reasoning_lab.data.tokens.batches import token_batch
    from reasoning_lab.data.tokens.documents import TrainedPart, document_of
    from reasoning_lab.kernels import attention, logit_chunks
    from reasoning_lab.kernels.binding import bind_kernels, mix_precision
    from reasoning_lab.kernels.fused_ops import unbind_fused_ops
    from reasoning_lab.training.micro_batches import MicroBatch
    from reasoning_lab.types import Example

    if without == "joined":
        attention.flash_attention_supports = lambda value, options: False
    if without == "chunks":
        logit_chunks.LOGITS_AT_ONCE_ON_GPU = logit_chunks.LOGITS_AT_ONCE
    options = architecture_of(model)
    config = AutoConfig.for_model(options.pop("model_type"), pad_token_id=0, **options)
    kind = torch.float32 if dtype == "mixed" else torch.bfloat16
    with torch.device("cuda"):
        policy = AutoModelForCausalLM.from_config(config, dtype=kind)
    bind_kernels(policy)
    if without == "norms":
        unbind_fused_ops(policy)
    if dtype == "mixed":
        mix_precision(policy)
    if checkpointed:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    lengths = documents_of(tokens)
    generator = torch.Generator().manual_seed(0)

    def batch(index: object) -> MicroBatch:
        ids = torch.randint(3, config.vocab_size, (tokens,), generator=generator).split(lengths)
        part = TrainedPart.SEQUENCE
        documents = [document_of(Example([], part_ids.tolist()), trained=part) for part_ids in ids]
        return MicroBatch(tokens=token_batch(documents))

    ends: list[float] = []

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            torch.cuda.synchronize()
            ends.append(time.perf_counter())

    train(policy, batch, WARM + STEPS, "gpu", [Clock()])
    step_seconds = sorted(after - before for before, after in pairwise(ends[WARM - 1 :]))
    return {
        "step_s": step_seconds[len(step_seconds) // 2],
        "peak": torch.cuda.max_memory_allocated(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Print the table."""
    from reasoning_lab.config.hardware import HardwareConfig
    from reasoning_lab.models.cost import DEVICES, training_flops
    from reasoning_lab.models.footprint import footprint

    print("| model | dtype | tokens | checkpointing | without | tokens/s | MFU | GB | plan, GB |")
    print("| :-- | :-- | --: | :-- | :-- | --: | --: | --: | --: |")
    for case in CASES:
        model, dtype, tokens, checkpointed, without = case
        words = [sys.executable, "-m", __spec__.name, *map(str, case)]
        child = subprocess.run(words, capture_output=True, text=True)
        if child.returncode:
            print(f"| {model} | {without} | {child.stderr.strip().splitlines()[-1]} |", flush=True)
            continue
        measurement = json.loads(child.stdout.splitlines()[-1])
        architecture = architecture_of(model)
        vocab = architecture["vocab_size"]
        flops = sum(training_flops(architecture, vocab, 1, n) for n in documents_of(tokens))
        peak = next(d.flops_per_s for k, d in DEVICES.items() if k in measurement["device"].lower())
        hardware = HardwareConfig("gpu", activation_checkpointing=bool(checkpointed))
        planned = footprint(architecture, vocab, dtype, ADAMW, hardware, packed=True)
        assert planned is not None
        print(
            f"| {model} | {dtype} | {tokens:,} | {'yes' if checkpointed else 'no'} | {without} | "
            f"{tokens / measurement['step_s']:,.0f} | {flops / measurement['step_s'] / peak:.0%} | "
            f"{measurement['peak'] / 1e9:.1f} | {planned.peak(tokens) / 1e9:.1f} |",
            flush=True,
        )
    print(f"\n{measurement['device']}, torch {measurement['torch']}, {STEPS} steps after {WARM}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _, model, dtype, tokens, checkpointed, without = sys.argv
        print(json.dumps(measure(model, dtype, int(tokens), int(checkpointed), without)))
    else:
        main()
