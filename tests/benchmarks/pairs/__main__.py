"""Ours against what would be used instead, in turn on the same work: `make bench`.

    python -m tests.benchmarks.pairs [PAIR,PAIR…] [--size NAME …] [--threads N] [--rounds N]
        [--out FOLDER]

For each pair and size, each side has a process, and the sides work in turn. First comes a check,
in which tokens and first losses must be equal, then the rounds. A pair whose package is missing
is left out; `distillation` and `grpo_vllm` need the environment of vLLM. Writes `bench.json` and
`bench.md`: medians, their ratio, the limit's fraction, peak memory. Run it on an idle machine: a
busy one flatters the side that does less.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .limits import bytes_per_s, products_per_s
from .work import PAIRS, Pair
from .workload import SIZES, write_workload

Answer = dict[str, Any]
_MOST_LOSS_APART = 1e-4
# These sample completions, so their token counts agree only approximately.
DRAWING = ("generation", "grpo", "grpo_ending", "distillation", "grpo_vllm")
_MOST_TOKENS_APART_FRAC = 0.25
# Their CPU seconds do not include our verifier's workers.
_IN_PROCESSES = ("verification", "distillation")


class UnequalWorkError(Exception):
    """The two sides did not do the same."""


class Process:
    """A side in a process of its own."""

    def __init__(self, path: str, folder: Path, threads: int, log: Path) -> None:
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        trusted = {"REASONING_LAB_TRUSTED": "tests"}  # The reward is a function of `workload`.
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.pairs.child", path, folder, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **limits, **quiet, **trusted},
            )

    def request_work(self, kind: str) -> Answer:
        """Have it do a `check` or a `round`, and return its work.

        Raises:
            RuntimeError: The process has ended; the error has its last lines.
        """
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(kind + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._log}: {self._log.read_text()[-3000:]}")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=60)


@contextlib.contextmanager
def open_sides(pair: Pair, folder: Path, threads: int) -> Iterator[tuple[Process, Process]]:
    ours = Process(pair.ours, folder, threads, folder / "ours.log")
    peer = Process(pair.peer, folder, threads, folder / "peer.log")
    try:
        yield ours, peer
    finally:
        ours.close()
        peer.close()


def assert_equal_work(name: str, ours: Answer, peer: Answer) -> None:
    """Same units and tokens; sampled completions may differ a little in length."""
    if ours["units"] != peer["units"]:
        raise UnequalWorkError(f"{name}: {ours['units']} and {peer['units']} units")
    difference = abs(ours["tokens"] - peer["tokens"])
    if difference > (_MOST_TOKENS_APART_FRAC * peer["tokens"] if name in DRAWING else 0):
        raise UnequalWorkError(f"{name}: {ours['tokens']} and {peer['tokens']} tokens")


def summed(works: Sequence[Answer]) -> Answer:
    """Units and tokens of several rounds, as those of a single round vary too much."""
    return {key: sum(work[key] for work in works) for key in ("units", "tokens")}


def assert_equal_losses(name: str, ours: Answer, peer: Answer) -> None:
    """Of steps on one batch: so the models, the tokens and the optimizers are the same."""
    pairs = list(zip(ours["losses"], peer["losses"], strict=True))
    if any(abs(one - other) > _MOST_LOSS_APART for one, other in pairs):
        raise UnequalWorkError(f"{name}: losses {pairs}")


def measured_row(
    name: str, pair: Pair, size_name: str, folder: Path, threads: int, rounds: int
) -> dict[str, Any]:
    """A row of the table."""
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    cpu_ratios, works_by_round = [], []
    with open_sides(pair, folder, threads) as sides:
        checks = [side.request_work("check") for side in sides]
        if name not in DRAWING:
            assert_equal_work(name, *checks)
            assert_equal_losses(name, *checks)
        for _ in range(rounds):
            works = [side.request_work("round") for side in sides]
            if name not in DRAWING:
                assert_equal_work(name, *works)
            works_by_round.append(works)
            for side, work in zip(rates, works, strict=True):
                rates[side].append(work["units"] / work["seconds"])
            cpu_ratios.append(works[1]["cpu_seconds"] / works[0]["cpu_seconds"])
    assert_equal_work(name, *(summed(of_side) for of_side in zip(*works_by_round, strict=True)))
    ours, peer = (statistics.median(values) for values in rates.values())
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    return {
        "name": f"{name}/{size_name}",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": pair.unit,
        **limits_of([ours for ours, _ in works_by_round], size_name),
        "target": pair.targets.get(size_name),
        "n": rounds,
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "cpu_ratio": statistics.median(cpu_ratios) if name not in _IN_PROCESSES else None,
        **memory_of(*works),
        "losses": [checks[0]["losses"], checks[1]["losses"]],
        "against": pair.peer_name,
        "load": os.getloadavg()[0],
    }


def memory_of(ours: Answer, peer: Answer) -> dict[str, float]:
    """In MiB: each process's peak, and how far the work lifted it."""
    sides = {"ours": ours, "peer": peer}
    whole = {f"{side}_peak_mb": work["peak_bytes"] / 2**20 for side, work in sides.items()}
    lifted = {
        f"{side}_work_mb": (work["peak_bytes"] - work["ready_bytes"]) / 2**20
        for side, work in sides.items()
    }
    return {**whole, **lifted}


def limits_of(works: Sequence[Answer], size_name: str) -> dict[str, float | None]:
    """The rounds' median operations and bytes a second, as fractions of what the machine does."""
    flops, read = (
        statistics.median(work[kind] / work["seconds"] for work in works)
        for kind in ("flops", "read_bytes")
    )
    return {
        "limit": flops / products_limit(size_name) if flops else None,
        "bandwidth": read / bytes_limit() if read else None,
    }


@cache
def products_limit(size_name: str) -> float:
    """Operations a second of the size's own products, measured once, between rounds."""
    size = SIZES[size_name]
    return products_per_s(size, size.row_tokens * size.batch_rows)


bytes_limit = cache(bytes_per_s)


def table(rows: Sequence[dict[str, Any]], threads: int) -> str:
    """Markdown."""
    lines = [
        f"{threads} threads of {os.cpu_count()} cores, torch {torch.__version__}; medians of n "
        "rounds in turn. Limit: the fraction of what products of the model's own shapes reach; "
        "bandwidth: of what a product with one vector reads.",
        "",
        "CPU: the ratio of CPU seconds, which other work on the machine disturbs less. Memory: our "
        "peak over the peer's, of the work alone and, in brackets, with the libraries that a "
        "process holds before it.",
        "",
        "| pair | against | ours | peer | unit | ratio | target | CPU | limit | bandwidth "
        "| memory | n | load |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cpu = "" if row["cpu_ratio"] is None else f"{row['cpu_ratio']:.2f}"
        limit, bandwidth = (
            "" if row[kind] is None else f"{row[kind]:.0%}" for kind in ("limit", "bandwidth")
        )
        target = "" if row["target"] is None else f"{row['target']:.1f}"
        # A little work may fit into what the peer's libraries had freed.
        memory = f"{row['ours_work_mb'] / row['peer_work_mb']:.0%}" if row["peer_work_mb"] else ""
        lines.append(
            f"| {row['name']} | {row['against']} | {rate(row['ours'])} | {rate(row['peer'])} "
            f"| {row['unit']} | {row['ratio']:.2f} ({row['ratio_min']:.2f}–{row['ratio_max']:.2f}) "
            f"| {target} | {cpu} | {limit} | {bandwidth} "
            f"| {memory} "
            f"({row['ours_peak_mb'] / row['peer_peak_mb']:.0%}) "
            f"| {row['n']} | {row['load']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def rate(value: float) -> str:
    """Three digits at the least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="?", default="", help="names, with commas; all by default")
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["tiny", "30m"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, help="instead of each size's own")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    options.pairs = [name for name in options.pairs.split(",") if name] or list(PAIRS)
    unknown = [name for name in options.pairs if name not in PAIRS]
    if unknown:
        parser.error(f"no pair is called {', '.join(unknown)}; there are {', '.join(PAIRS)}")
    return options


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in [name for name in options.pairs if not PAIRS[name].is_possible]:
        print(f"{name}: left out, as the package '{PAIRS[name].package}' is not installed")
        options.pairs.remove(name)
    machine = {"threads": options.threads, "cpus": os.cpu_count(), "torch": torch.__version__}
    for size_name in options.size:
        rounds = options.rounds or SIZES[size_name].rounds
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_workload(SIZES[size_name], folder)
            for name in options.pairs:
                pair = PAIRS[name]
                if size_name != "smoke" and size_name not in pair.targets:
                    continue
                row = measured_row(name, pair, size_name, folder, options.threads, rounds)
                rows.append(row)
                print(json.dumps(row), flush=True)
                # Written after each pair, so that an interrupted run keeps its results.
                content = {"machine": machine, "results": rows}
                (options.out / "bench.json").write_text(json.dumps(content, indent=1) + "\n")
                (options.out / "bench.md").write_text(table(rows, options.threads))
    if rows:
        print(table(rows, options.threads))


if __name__ == "__main__":
    main()
