"""Our sides: the stages as a recipe runs them, and the lab's engine and verifier."""

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import OptimizationConfig, OptimizerConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.models.policy import load_policy, load_tokenizer
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import prompt_tokens, tokenize_rollouts
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.stages.dpo.stage import DPOStage
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.stages.rl.options import KLConfig, TemperatureConfig
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.system import malloc
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.types import Problem
from reasoning_lab.verify import Verifier
from tests.support.sources import file_source

from .limits import decoding_bytes, decoding_products, training_products
from .work import CHECK_STEPS, Clock, Work
from .workload import ENDING_POLICY, Size, ends

BETA, LEARNING_RATE = 0.1, 1e-4
ADAMW = OptimizerConfig("torch.optim.AdamW", weight_decay=0.0, options={"fused": True})


@dataclass(frozen=True, kw_only=True)
class TimedContext(StageContext):
    """Starts a clock when the policy is loaded."""

    loaded: list[Clock] = field(default_factory=list)

    def load_student(self, policy: Policy) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        student = super().load_student(policy)
        self.loaded.append(Clock())
        return student


def size_of(folder: Path) -> Size:
    return Size(**json.loads((folder / "size.json").read_text()))


class Stage:
    """A training stage, from the moment that the policy is loaded until it is written again.

    So tokenising and packing count on our side, and on the peer's they don't.
    """

    def __init__(self, folder: Path, kind: str, policy: str = "policy") -> None:
        malloc.return_freed_blocks()  # As the lab's commands begin.
        self._folder, self._kind, self._size = folder, kind, size_of(folder)
        self._policy = folder / policy

    def check(self) -> Work:
        return self._run("-check", CHECK_STEPS)

    def round(self) -> Work:
        return self._run("", self._size.steps[self._kind])

    def _run(self, suffix: str, steps: int) -> Work:
        run_folder = self._folder / "ours"
        shutil.rmtree(run_folder, ignore_errors=True)
        (run_folder / "out").mkdir(parents=True)
        data = self._folder / f"{self._kind}{suffix}"
        stage = self._stage(steps)
        context = self._context(run_folder, data)
        inputs = {artifact.kind: context.inputs[artifact.kind] for artifact in stage.consumes}
        metrics: Mapping[str, Any] = stage.run(context, **inputs)
        return self._work(context, stage.optimization, data, metrics)

    def _stage(self, steps: int) -> TrainingStage:
        return _STAGES[self._kind](self._size, steps)

    def _context(self, run_folder: Path, data: Path) -> TimedContext:
        return TimedContext(
            name=self._kind,
            seed=0,
            out_dir=run_folder / "out",
            work_dir=run_folder / "work",
            stage=LabStage(),
            inputs={
                "policy": Policy(self._policy),
                "corpus": Corpus(data),
                "preferences": Preferences(data),
            },
            model=ModelConfig(architecture=self._size.architecture),
            source=None,  # type: ignore[arg-type]  # The rollouts are there.
            hardware=HardwareConfig(),
            verifier=None,  # type: ignore[arg-type]  # Nothing is verified.
            tracker=Tracker(),
        )

    def _work(
        self,
        context: TimedContext,
        optimization: OptimizationConfig,
        data: Path,
        metrics: Mapping[str, Any],
    ) -> Work:
        elapsed = context.loaded[0].read()
        losses = read_history(context.out_dir)["train/loss"]
        tokens = metrics["train_tokens"]
        pairs = self._kind == "dpo"
        return Work(
            optimization.batch_size * optimization.steps if pairs else tokens,
            *elapsed,
            tokens,
            tuple(losses[step] for step in sorted(losses)),
            training_products(self._size, tokens, self._trained(data), 4 if pairs else 3),
        )

    def _trained(self, data: Path) -> int:
        """Completion tokens that a round reads, all documents once."""
        tokenizer = load_tokenizer(self._folder / "policy", None, "policy")
        return sum(
            len(example.completion_ids)
            for path in data.glob("*.parquet")
            if path.stem != "validation"
            for example in tokenize_rollouts(tokenizer, read_rollouts(path))
        )


def _optimization(steps: int, batch_size: int) -> OptimizationConfig:
    return OptimizationConfig(
        optimizer=ADAMW,
        learning_rate=LEARNING_RATE,
        length=f"{steps} steps",
        batch_size=batch_size,
        checkpoint_every_steps=10**6,
        checkpoint_every_minutes=1e6,
        log_every_steps=1,
    )


def _midtrain(size: Size, steps: int) -> TrainingStage:
    return MidtrainStage(
        row_tokens=size.row_tokens,
        trained="completion",
        patience=9,
        validate_every_steps=steps,
        optimization=_optimization(steps, size.batch_rows),
    )


def _sft(size: Size, steps: int) -> TrainingStage:
    optimization = _optimization(steps, size.batch_size)
    return SFTStage(levels=[1], count=10**6, optimization=optimization)


def _dpo(size: Size, steps: int) -> TrainingStage:
    return DPOStage(beta=BETA, optimization=_optimization(steps, size.batch_size))


def rl_stage(size: Size, steps: int) -> RLStage:
    return RLStage(
        problems=ProblemsConfig([1], steps * size.rl_prompts),
        group_size=size.group_size,
        max_new_tokens=size.max_new_tokens // 2,
        temperature=TemperatureConfig(1.0, 1.0, 0.0),
        signal="reward",
        rewards={"chance": {"_target_": "tests.benchmarks.pairs.workload.chance"}},
        kl=KLConfig(log_every_steps=0),
        optimization=_optimization(steps, size.rl_prompts),
        table_every_steps=10**6,
    )


class PolicyGradient(Stage):
    """RL, whose check is a step on other prompts, as completions are drawn anew in each."""

    def __init__(self, folder: Path, policy: str) -> None:
        super().__init__(folder, "grpo", policy)
        self._verifier = Verifier(1, timeout_s=10, memory_mb=512)
        self._verifier.__enter__()

    def check(self) -> Work:
        return self._run("-check", 1)

    def _context(self, run_folder: Path, data: Path) -> TimedContext:
        source = file_source(str(data / "problems.jsonl"), 0.0, 0.0, {"checker": "number"})
        context = super()._context(run_folder, data)
        return replace(context, source=source, verifier=self._verifier)

    def _work(
        self,
        context: TimedContext,
        optimization: OptimizationConfig,
        data: Path,
        metrics: Mapping[str, Any],
    ) -> Work:
        return Work(metrics["rollouts"], *context.loaded[0].read(), metrics["train_tokens"])


def grpo(folder: Path) -> PolicyGradient:
    """Of completions that hardly ever end before they are cut off."""
    return PolicyGradient(folder, "policy")


def grpo_ending(folder: Path) -> PolicyGradient:
    """Of completions of all lengths, as a policy writes that has learned to end them."""
    return PolicyGradient(folder, ENDING_POLICY)


_STAGES = {"grpo": rl_stage, "midtrain": _midtrain, "sft": _sft, "dpo": _dpo}


def midtrain(folder: Path) -> Stage:
    return Stage(folder, "midtrain")


def sft(folder: Path) -> Stage:
    return Stage(folder, "sft")


def dpo(folder: Path) -> Stage:
    return Stage(folder, "dpo")


class Generation:
    """Completions of all prompts in one batch, from their token ids, at temperature 1."""

    def __init__(self, folder: Path) -> None:
        malloc.return_freed_blocks()  # As the lab's commands begin.
        self._size = size_of(folder)
        model, tokenizer = load_policy(folder / "policy", "float32")
        model.generation_config.eos_token_id = ends(self._size)
        self._engine = HFEngine(model, tokenizer, self._size.prompts)
        self._prompts = prompt_tokens(tokenizer, json.loads((folder / "prompts.json").read_text()))
        self._seed = 0

    def check(self) -> Work:
        return self.round()

    def round(self) -> Work:
        self._seed += 1
        seeds = [
            random.Random(f"{self._seed}/{row}").getrandbits(63)
            for row in range(len(self._prompts))
        ]
        sampling = Sampling(1.0, 1.0, self._size.max_new_tokens)
        clock = Clock()
        completions = self._engine.complete(self._prompts, sampling, seeds)
        elapsed = clock.read()
        completion_lengths = [len(completion.token_ids) for completion in completions]
        lengths = [len(prompt) for prompt in self._prompts]
        return Work(
            len(completions),
            *elapsed,
            sum(completion_lengths),
            flops=decoding_products(self._size, lengths, completion_lengths),
            read_bytes=decoding_bytes(self._size, lengths, completion_lengths),
        )


def generation(folder: Path) -> Generation:
    return Generation(folder)


def answers(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Golds and answers, about half of them right; none equals its gold's text."""
    rng = random.Random(seed)
    golds, texts = [], []
    spellings = ["{0}.0", "\\frac{{{1}}}{{2}}", "\\frac{{\\sqrt{{{2}}}}}{{2}}"]
    for _ in range(count):
        value = rng.randrange(2, 100_000)
        spelling = rng.randrange(3)
        golds.append(f"\\sqrt{{{value}}}" if spelling == 2 else str(value))
        value += rng.randrange(2)
        texts.append(f"\\boxed{{{spellings[spelling].format(value, 2 * value, 4 * value)}}}")
    return golds, texts


class Verification:
    """As many processes as there are threads, warm."""

    def __init__(self, folder: Path) -> None:
        golds, self._answers = answers(size_of(folder).answers)
        self._problems = [Problem(f"q{at}", gold, "math", "bench") for at, gold in enumerate(golds)]
        self._verifier = Verifier(torch.get_num_threads(), timeout_s=10, memory_mb=512)
        self._verifier.__enter__()

    def check(self) -> Work:
        return self.round()

    def round(self) -> Work:
        clock = Clock()
        verdicts = self._verifier.verify(self._problems, self._answers)
        elapsed = clock.read()
        right = sum(str(verdict) == "correct" for _, verdict in verdicts)
        return Work(len(verdicts), *elapsed, right)


def verification(folder: Path) -> Verification:
    return Verification(folder)
