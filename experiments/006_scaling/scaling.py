"""The paper's recipe from 8 to 1,024 GPUs, on paper and by simulation: tables and a figure.

    python experiments/006_scaling/scaling.py

Memory and arithmetic are `reasoning_lab.models`'. Bytes sent are those of ring collectives: an
all-reduce of S bytes among n devices sends 2 S (n - 1) / n from each, a reduce-scatter or an
all-gather S (n - 1) / n (Rajbhandari et al. 2020, arXiv:1910.02054, section 7: ZeRO-1 and 2 send
what DDP sends, ZeRO-3 and FSDP half as much again). Generation is a discrete-event simulation
with a stated seed: lengths are lognormal, a device decodes its rows together, and a token of each
takes what reading the weights and the rows' keys and values takes. Partial rollouts go through the
queue of the stage `rl`.
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
from reasoning_lab.models.cost import (
    ASSUMED_MFU,
    DEVICES,
    forward_flops,
    training_flops,
    training_s,
)
from reasoning_lab.models.footprint import (
    STRATEGIES,
    cache_bytes,
    footprint,
    parameter_count,
    weight_bytes,
)
from reasoning_lab.report.figures import COLOURS, INK, new_figure, save_figure, style_axes
from reasoning_lab.stages.rl.rollout_queue import FinishedGroup, RolloutQueue

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
SLOTS, GROUP_SIZE = 64, 8
# How far ahead partial rollouts are sampled, and the steps before the queue is in its rhythm.
STALENESS, FIRST_STEPS = 4, 8


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


def continuous_s(
    device_lengths: npt.NDArray[np.int64],
    slots: int,
    earlier_tokens: npt.NDArray[np.int64] | None = None,
) -> float:
    """One device's rollouts, each slot refilled as soon as its row ends.

    `earlier_tokens` are those that each row has already; None = none.
    """
    if earlier_tokens is None:
        earlier_tokens = np.zeros_like(device_lengths)
    waiting = list(zip(device_lengths[::-1], earlier_tokens[::-1], strict=True))
    now_tokens, total = 0, 0.0
    running: list[tuple[int, int]] = []  # When it ends and when it began, in decoding steps.
    while waiting or running:
        while waiting and len(running) < slots:
            tokens, earlier = (int(count) for count in waiting.pop())
            heapq.heappush(running, (now_tokens + tokens, now_tokens - earlier))
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
    slowest, mean, training = [], [], []
    for _ in range(RL_STEPS):
        token_counts = lengths(rng, ROLLOUTS, sigma)
        seconds = [
            sampling_s(device_lengths, SLOTS)
            for device_lengths in np.array_split(token_counts, devices)
        ]
        slowest.append(max(seconds))
        mean.append(float(np.mean(seconds)))
        flops = training_flops(PHI, VOCAB, 1, int(token_counts.mean())) * len(token_counts)
        training.append(training_s(flops, H100, devices))
    return float(np.mean(slowest)), float(np.mean(mean)), float(np.mean(training))


class PartialRollouts:
    """Groups that go on over updates, in the queue of the stage; rows are spread over devices.

    Devices wait for the slowest at the end of a round. Tokens of earlier weights are read again.
    """

    def __init__(self, devices: int, sigma: float) -> None:
        self._devices, self._sigma = devices, sigma
        self._rng = np.random.default_rng(SEED)
        self.queue = RolloutQueue(ROLLOUTS // GROUP_SIZE, STALENESS)
        # By place in the run, of each rollout of a group.
        self._left: dict[int, npt.NDArray[np.int64]] = {}
        self._tokens: dict[int, npt.NDArray[np.int64]] = {}
        # By place, tokens by the step before which they were sampled.
        self.of_steps: dict[int, dict[int, int]] = {}

    def sample_s(self, step: int, trained: int) -> float:
        """Let the groups go on until `step` has its batch, by the weights after `trained` steps."""
        seconds, queue = 0.0, self.queue
        while queue.lacks(step):
            first = queue.begun
            queue.begin([[]] * queue.room(step, step + STALENESS), trained)
            for place in range(first, queue.begun):
                self._left[place] = lengths(self._rng, GROUP_SIZE, self._sigma)
                self._tokens[place] = np.zeros(GROUP_SIZE, np.int64)
                self.of_steps[place] = {}
            seconds += self._round_s([group.place for group in queue.unfinished], trained)
            ended = [group for group in queue.unfinished if not self._left[group.place].any()]
            queue.update(
                [group for group in queue.unfinished if self._left[group.place].any()],
                [FinishedGroup(group.place, group.first_step, []) for group in ended],
            )
        return seconds

    def _round_s(self, places: list[int], trained: int) -> float:
        most, devices = self.queue.round_tokens(MOST_TOKENS), self._devices
        reread = [
            forward_flops(PHI, VOCAB, 1, int(count))
            for place in places
            if self.of_steps[place] and trained not in self.of_steps[place]
            for count in self._tokens[place][self._left[place] > 0]
        ]
        new = np.concatenate([np.minimum(self._left[place], most) for place in places])
        tokens = np.concatenate([self._tokens[place] for place in places])
        rows = [np.flatnonzero(new)[device::devices] for device in range(devices)]
        seconds = max(continuous_s(new[of_device], SLOTS, tokens[of_device]) for of_device in rows)
        for place, of_place in zip(places, new.reshape(-1, GROUP_SIZE), strict=True):
            self._left[place] -= of_place
            self._tokens[place] += of_place
            before = self.of_steps[place].get(trained, 0)
            self.of_steps[place][trained] = before + int(of_place.sum())
        return seconds + training_s(sum(reread), H100, devices)


def partial_step_s(devices: int, sigma: float, training: float) -> tuple[float, float]:
    """Mean of a step with partial rollouts, and of the age of its tokens in steps."""
    rollouts = PartialRollouts(devices, sigma)
    rollouts.sample_s(0, 0)
    seconds, ages, counts = [], 0, 0
    for step in range(FIRST_STEPS + RL_STEPS):
        taken, stale = rollouts.queue.take(step)
        assert not stale
        elapsed = max(training, rollouts.sample_s(step + 1, step))
        if step < FIRST_STEPS:
            continue
        seconds.append(elapsed)
        for group in taken:
            for sampled_at, count in rollouts.of_steps[group.place].items():
                ages += (step - sampled_at) * count
                counts += count
    return float(np.mean(seconds)), ages / counts


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
        " ahead, shared s | ahead, halves s | partial s | age |"
    )
    print("| --: " * 12 + "|")
    ratios: dict[str, list[float]] = {"fixed batches": [], "continuous": []}
    for devices in (8, 64, 128, 1024):
        for sigma in (0.4, SIGMA):
            slow, mean, train = rl_step_s(devices, sigma, fixed_batches_s)
            slow_c, mean_c, _ = rl_step_s(devices, sigma, continuous_s)
            in_turn = slow_c + train
            # Half of the devices draw while the other half train: both take twice as long.
            half_slow, _, _ = rl_step_s(devices // 2, sigma, continuous_s)
            ahead = max(half_slow, 2 * train)
            partial, age = partial_step_s(devices, sigma, train)
            print(
                f"| {devices:,} | {sigma} | {slow:.0f} | {1 - mean / slow:.0%} | {slow_c:.0f} | "
                f"{1 - mean_c / slow_c:.0%} | {train:.1f} | {in_turn:.0f} | "
                f"{max(slow_c, train):.0f} | {ahead:.0f} | {partial:.0f} | {age:.1f} |"
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
