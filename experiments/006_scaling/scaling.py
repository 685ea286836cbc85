"""The paper's recipe from 8 to 1,024 GPUs, on paper and by simulation: tables and a figure.

    python experiments/006_scaling/scaling.py

Memory and arithmetic are `reasoning_lab.models`'. Bytes sent are those of ring collectives: an
all-reduce of S bytes among n devices sends 2 S (n - 1) / n from each, a reduce-scatter or an
all-gather S (n - 1) / n (Rajbhandari et al. 2020, arXiv:1910.02054, section 7: ZeRO-1 and 2 send
what DDP sends, ZeRO-3 and FSDP half as much again). Generation is a discrete-event simulation
with a stated seed: lengths are lognormal, a device decodes its rows together, and a token of each
takes what reading the weights and the rows' keys and values takes.
"""

import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from reasoning_lab.config.folder import CONF
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.models.cost import ASSUMED_MFU, DEVICES, training_flops, training_s
from reasoning_lab.models.footprint import (
    STRATEGIES,
    cache_bytes,
    footprint,
    parameter_count,
    weight_bytes,
)
from reasoning_lab.report.figures import COLOURS, INK, new_figure, save_figure, style_axes

SEED = 0
H100 = DEVICES["h100"]
MODEL: dict[str, Any] = yaml.safe_load((CONF / "model" / "phi4_mini.yaml").read_text())
PHI = MODEL["architecture"]
VOCAB, DTYPE = MODEL["vocab_size"], MODEL["dtype"]
# The same family, wider and deeper.
LARGER = {
    "3.8B": PHI,
    "14B": {
        **PHI,
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
    },
}
ADAMW = "torch.optim.AdamW"
ROW_TOKENS, BATCH_ROWS = 16384, 128
# A node's devices share NVLink; each has a 400 Gbit/s port beside it.
NODE, PORT_BYTES_PER_S = 8, 50e9
# Rollouts: 128 prompts of 8, mean 6,000 tokens, cut at 25,600; the spread is assumed.
ROLLOUTS, MEAN_TOKENS, SIGMA, MOST_TOKENS = 1024, 6000, 0.8, 25600
RL_STEPS = 20


def sent_bytes(strategy: str, parameters: int, devices: int) -> float:
    """From each device in an optimizer step without accumulation, gradients in bfloat16."""
    part = 2 * parameters * (devices - 1) / devices
    return (3 if STRATEGIES[strategy].weights else 2) * part


def lengths(rng: np.random.Generator, count: int, sigma: float) -> npt.NDArray[np.int64]:
    """Tokens of completions: lognormal with the mean above, cut off at the limit."""
    token_counts = rng.lognormal(np.log(MEAN_TOKENS) - sigma**2 / 2, sigma, count)
    return np.clip(token_counts, 1, MOST_TOKENS).astype(np.int64)


def decode_s(rows: int, tokens: float) -> float:
    """One token for each of `rows` rows that have `tokens` tokens each on average."""
    weights = weight_bytes(PHI, VOCAB, DTYPE)
    return (weights + rows * tokens * cache_bytes(PHI, DTYPE)) / H100.bytes_per_s


def fixed_batches_s(device_lengths: npt.NDArray[np.int64], slots: int) -> float:
    """One device's rollouts, `slots` at a time: the next begin when the longest has ended."""
    total = 0.0
    for start in range(0, len(device_lengths), slots):
        total += _drained(np.sort(device_lengths[start : start + slots]))
    return total


def _drained(ordered: npt.NDArray[np.int64]) -> float:
    """Rows that began together, until the last has ended; shorter ones leave on their way."""
    total, before = 0.0, 0
    for ended, length in enumerate(ordered):
        total += (length - before) * decode_s(len(ordered) - ended, (length + before) / 2)
        before = int(length)
    return total


def continuous_s(device_lengths: npt.NDArray[np.int64], slots: int) -> float:
    """One device's rollouts, each slot refilled as soon as its row ends."""
    waiting, now_tokens, total = list(device_lengths[::-1]), 0, 0.0
    running: list[tuple[int, int]] = []  # When it ends and when it began, in decoding steps.
    while waiting or running:
        while waiting and len(running) < slots:
            heapq.heappush(running, (now_tokens + int(waiting.pop()), now_tokens))
        ends, _ = heapq.heappop(running)
        rows = len(running) + 1
        age = now_tokens - np.mean([began for _, began in running] or [now_tokens])
        total += (ends - now_tokens) * decode_s(rows, float(age) + (ends - now_tokens) / 2)
        now_tokens = ends
    return total


def rl_step_s(
    devices: int, sigma: float, sampling_s: Callable[[npt.NDArray[np.int64], int], float]
) -> tuple[float, float, float]:
    """Means of a step: the slowest device's drawing, the mean device's, and training."""
    rng = np.random.default_rng(SEED)
    slots = 64
    slowest, mean, training = [], [], []
    for _ in range(RL_STEPS):
        token_counts = lengths(rng, ROLLOUTS, sigma)
        seconds = [
            sampling_s(device_lengths, slots)
            for device_lengths in np.array_split(token_counts, devices)
        ]
        slowest.append(max(seconds))
        mean.append(float(np.mean(seconds)))
        flops = training_flops(PHI, VOCAB, 1, int(token_counts.mean())) * len(token_counts)
        training.append(training_s(flops, H100, devices))
    return float(np.mean(slowest)), float(np.mean(mean)), float(np.mean(training))


def memory_table() -> None:
    """GB on each device for one packed row of 16,384 tokens."""
    print("| model | strategy | 1 | 8 | 64 | 1,024 | states alone, 8 |")
    print("| :-- | :-- " + "| --: " * 5 + "|")
    for name, architecture in LARGER.items():
        for strategy in [name for name in STRATEGIES if name != "single"]:
            cells = []
            for devices in (1, 8, 64, 1024):
                hardware = HardwareConfig(
                    "gpu", devices=devices, strategy=strategy, activation_checkpointing=True
                )
                estimate = footprint(architecture, VOCAB, DTYPE, ADAMW, hardware, packed=True)
                assert estimate is not None
                cells.append(f"{estimate.peak(ROW_TOKENS) / 1e9:.0f}")
                if devices == 8:
                    states = f"{estimate.states / 1e9:.0f}"
            print(f"| {name} | {strategy} | " + " | ".join([*cells, states]) + " |")


def training_table() -> None:
    """A mid-training step of 128 rows: arithmetic, bytes sent, and what takes longer."""
    print(
        "| model | devices | rows a device | compute s | DDP, ZeRO-1, 2: GB, s |"
        " FSDP, ZeRO-3: GB, s |"
    )
    print("| :-- " + "| --: " * 5 + "|")
    for name, architecture in LARGER.items():
        parameters = parameter_count(architecture, VOCAB)
        flops = training_flops(architecture, VOCAB, BATCH_ROWS, ROW_TOKENS)
        for devices in (8, 64, 128, 1024):
            used = min(devices, BATCH_ROWS)
            compute = training_s(flops, H100, used)
            sends = []
            for strategy in ("ddp", "fsdp"):
                sent = sent_bytes(strategy, parameters, used)
                seconds = sent / PORT_BYTES_PER_S if devices > NODE else sent / 450e9
                sends.append(f"{sent / 1e9:.1f}, {seconds:.2f}")
            rows = BATCH_ROWS / devices
            print(
                f"| {name} | {devices:,} | {rows:g} | {compute:.2f} | " + " | ".join(sends) + " |"
            )


def rollout_table() -> dict[str, list[float]]:
    """RL steps: drawing in fixed batches or continuously; one after the other or at once."""
    print(
        "| devices | spread | fixed batches s | idle | continuous s | idle | train s | in turn s |"
        " ahead, shared s | ahead, halves s |"
    )
    print("| --: " * 10 + "|")
    ratios: dict[str, list[float]] = {"fixed batches": [], "continuous": []}
    for devices in (8, 64, 128, 1024):
        for sigma in (0.4, SIGMA):
            slow, mean, train = rl_step_s(devices, sigma, fixed_batches_s)
            slow_c, mean_c, _ = rl_step_s(devices, sigma, continuous_s)
            in_turn = slow_c + train
            # Half of the devices draw while the other half train: both take twice as long.
            half_slow, _, _ = rl_step_s(devices // 2, sigma, continuous_s)
            ahead = max(half_slow, 2 * train)
            print(
                f"| {devices:,} | {sigma} | {slow:.0f} | {1 - mean / slow:.0%} | {slow_c:.0f} | "
                f"{1 - mean_c / slow_c:.0%} | {train:.1f} | {in_turn:.0f} | "
                f"{max(slow_c, train):.0f} | {ahead:.0f} |"
            )
            if sigma == SIGMA:
                ratios["fixed batches"].append(slow / train)
                ratios["continuous"].append(slow_c / train)
    return ratios


def main() -> None:
    """Print the tables and save the figure."""
    print(f"H100, MFU {ASSUMED_MFU}, seed {SEED}\n")
    memory_table()
    print()
    training_table()
    print()
    ratios = rollout_table()
    figure = new_figure(6.0, 3.0)
    panel = figure.subplots()
    for colour, (name, values) in zip(COLOURS, ratios.items(), strict=False):
        panel.plot([8, 64, 128, 1024], values, "o-", color=colour, label=name)
    panel.set_xscale("log", base=2)
    panel.set_xlabel("GPUs", fontsize=9, color=INK)
    panel.legend(frameon=False, fontsize=8)
    style_axes(panel, "y")
    save_figure(
        figure,
        "Seconds of drawing for each second of training",
        Path(__file__).with_name("balance.png"),
    )


if __name__ == "__main__":
    main()
