"""Distillation through vLLM: the `distill` stage, and the loop that one would write by hand.

    .venv-vllm/bin/python -m tests.benchmarks.pairs distillation

`make test-vllm` makes that environment. Both sides draw `ROLLOUTS` completions of each problem,
and one of each that is held out for validation, from one vLLM each, which is set up alike and open
before the first round. Every completion has a seed. The loop asks `PROBLEMS_AT_ONCE` problems at a
time, verifies with math-verify what comes, and writes the right ones; the stage counts its drawing
of problems, its shards, its Parquet files and its data card.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from reasoning_lab.config.components import CustomEngine
from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.models.policy import load_tokenizer
from reasoning_lab.models.tokenizer import prompt_texts
from reasoning_lab.sampling.config import ModelTeacherConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.vllm import VLLMEngine
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Completion, Problem, Prompt, Split
from reasoning_lab.verify import build_verifier
from tests.support.sources import file_source

from .ours import size_of
from .work import Clock, Work
from .workload import Size

ROLLOUTS = 4
PROBLEMS_AT_ONCE = 32
KV_CACHE_GB = 2


def source_of(folder: Path) -> TableSource:
    return file_source(str(folder / "problems.jsonl"), 0.0, 0.2, {})


def held_out(size: Size) -> int:
    """Problems of validation, of which each side draws one completion each."""
    return size.prompts // 8


class PersistentEngine(VLLMEngine):
    """Stays open between rounds, and counts what it writes."""

    tokens = 0

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        completions = super().generate(prompts, sampling, seeds)
        self.tokens += sum(len(completion.token_ids) for completion in completions)
        return completions

    def close(self) -> None:
        """Leave it to the process's end."""


OPEN_ENGINES: dict[str, PersistentEngine] = {}


def open_engine(model: str, hardware: HardwareConfig) -> PersistentEngine:
    """The engine that is open already, for the teacher's config to name."""
    return OPEN_ENGINES[model]


class Stage:
    """`distill`, with as many verifying processes as threads, in a fresh folder each round."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._size, self._seed = folder, size_of(folder), 0
        self._hardware = HardwareConfig(
            sampling=SamplingHardwareConfig(kv_cache_gb=KV_CACHE_GB),
            verifier_workers=torch.get_num_threads(),
            verifier_timeout_s=10.0,
        )
        self._model = str(folder / "teacher")
        OPEN_ENGINES[self._model] = PersistentEngine(
            self._model, None, "float32", None, self._hardware
        )
        self._source = source_of(folder)
        self._verifier = build_verifier(self._hardware)
        self._verifier.__enter__()

    def check(self) -> Work:
        return self.round()

    def round(self) -> Work:
        self._seed += 1
        run_folder = self._folder / "ours"
        shutil.rmtree(run_folder, ignore_errors=True)
        (run_folder / "out").mkdir(parents=True)
        context = StageContext(
            name="distill",
            seed=self._seed,
            out_dir=run_folder / "out",
            work_dir=run_folder / "work",
            stage=LabStage(),
            model=ModelConfig(architecture=self._size.architecture),
            source=self._source,
            hardware=self._hardware,
            verifier=self._verifier,
            tracker=Tracker(),
        )
        engine = CustomEngine(self._model, f"{__name__}.open_engine")
        config = DistillStage(
            teacher=ModelTeacherConfig(engine, "", "", 1.0, 1.0, self._size.max_new_tokens),
            problems=ProblemsConfig([1], self._size.prompts),
            validation=held_out(self._size),
            rollouts=ROLLOUTS,
        )
        before = OPEN_ENGINES[self._model].tokens
        clock = Clock()
        metrics = run(config, context)
        elapsed = clock.read()
        completions = metrics["rollouts"] + config.validation
        return Work(completions, *elapsed, OPEN_ENGINES[self._model].tokens - before)


def ours(folder: Path) -> Stage:
    return Stage(folder)


class Loop:
    """`LLM.generate` of some problems at a time, then math-verify on each completion."""

    def __init__(self, folder: Path) -> None:
        # As our engine has it on a CPU; before vLLM is imported.
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        from vllm import LLM

        self._folder, self._size, self._seed = folder, size_of(folder), 0
        self._llm = LLM(
            model=str(folder / "teacher"),
            dtype="float32",
            enforce_eager=True,
            enable_chunked_prefill=False,
            kv_cache_memory_bytes=KV_CACHE_GB * 2**30,
        )
        self._tokenizer = load_tokenizer(folder / "teacher", None, "teacher")
        self._source = source_of(folder)

    def check(self) -> Work:
        return self.round()

    def round(self) -> Work:
        self._seed += 1
        draws = {
            "accepted": (Split.TRAIN, self._size.prompts, ROLLOUTS),
            "validation": (Split.VALIDATION, held_out(self._size), 1),
        }
        completions = tokens = 0
        problems = {
            name: (list(self._source.problems(split, [1], count, self._seed)), samples)
            for name, (split, count, samples) in draws.items()
        }
        clock = Clock()
        for name, (split_problems, samples) in problems.items():
            with (self._folder / f"peer-{name}.jsonl").open("w") as file:
                for start in range(0, len(split_problems), PROBLEMS_AT_ONCE):
                    batch = split_problems[start : start + PROBLEMS_AT_ONCE]
                    texts, written = self._solved(batch, samples, start)
                    file.writelines(texts)
                    completions += len(batch) * samples
                    tokens += written
        return Work(completions, *clock.read(), tokens)

    def _solved(self, batch: Sequence[Problem], samples: int, start: int) -> tuple[list[str], int]:
        """Lines of those that are right, and the tokens of all."""
        from math_verify import parse, verify
        from vllm import SamplingParams

        requests = self._llm.generate(
            prompt_texts(self._tokenizer, [problem.prompt for problem in batch]),
            [
                SamplingParams(
                    n=samples,
                    temperature=1.0,
                    max_tokens=self._size.max_new_tokens,
                    seed=1_000_000 * self._seed + samples * (start + at),
                )
                for at in range(len(batch))
            ],
            use_tqdm=False,
        )
        lines, tokens = [], 0
        for problem, request in zip(batch, requests, strict=True):
            gold = parse(f"${problem.gold}$")
            for completion in request.outputs:
                tokens += len(completion.token_ids)
                if verify(gold, parse(completion.text)):
                    row = {"prompt": problem.prompt, "completion": completion.text}
                    lines.append(json.dumps(row) + "\n")
        return lines, tokens


def peer(folder: Path) -> Loop:
    return Loop(folder)
