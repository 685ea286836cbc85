"""Stages through their own API: a tiny policy and data, and each stage run on them."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.frozen_policy import FrozenPolicyConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import (
    ConstantConfig,
    OptimizationConfig,
    OptimizerConfig,
    TrapezoidConfig,
)
from reasoning_lab.config.policy_loss import CISPOConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.validation import OfflineValidationConfig, ValidationConfig
from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.data.sources.table_source import TableSource
from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy import build_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import tokenize_rollouts, train_tokenizer
from reasoning_lab.stages.dpo.stage import DPOStage
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.stages.rl.options import (
    CurriculumConfig,
    FilterConfig,
    ImportanceConfig,
    KLConfig,
    TemperatureConfig,
)
from reasoning_lab.stages.rl.stage import OPDStage, RLStage
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.system.files import rename_with_checksum
from reasoning_lab.tracking.panels import is_placed
from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker
from reasoning_lab.training import checkpoints
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.next_token_training import train_next_token
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.types import Completion, Rollout, Split, Verdict
from reasoning_lab.verify import Verifier
from tests.support.sources import file_source

STEPS = 6


def optimization(**changes: Any) -> OptimizationConfig:
    config = OptimizationConfig(
        optimizer=OptimizerConfig("torch.optim.AdamW", weight_decay=0.1),
        learning_rate=3e-3,
        schedule=TrapezoidConfig(warmup_frac=0.2, decay_frac=0.5),
        length=f"{STEPS} steps",
        batch_size=4,
        checkpoint_every_steps=1,
        log_every_steps=1,
    )
    return replace(config, **changes)


@pytest.fixture(scope="session")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> TableSource:
    """Coins: the answer cannot be known, so a trained policy is right about half the time."""
    path = tmp_path_factory.mktemp("data") / "coins.jsonl"
    path.write_text("".join(f'{{"prompt": "coin {n}", "gold": "{n % 2}"}}\n' for n in range(100)))
    return file_source(str(path), 0.1, 0.1, {"family": "coins"})


@pytest.fixture(scope="session")
def context(
    tmp_path_factory: pytest.TempPathFactory, source: TableSource, verifier: Verifier
) -> StageContext:
    """A context whose inputs are a policy that tosses coins, a corpus and preferences."""
    root = tmp_path_factory.mktemp("artifacts")
    architecture = {
        "model_type": "phi3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
    }
    policy, corpus = Policy(root / "policy"), Corpus(root / "corpus")
    preferences = Preferences(root / "preferences")
    inputs: dict[str, Artifact] = {
        artifact.kind: artifact for artifact in (policy, corpus, preferences)
    }
    for artifact in inputs.values():
        artifact.path.mkdir()
    problems = list(source.problems(Split.TRAIN, [1], 60, 0))
    rollouts = [
        Rollout(
            problem, Completion([], f"<think>\n{text}\n</think>\n\\boxed{{{gold}}}"), gold, v, "t"
        )
        for problem in problems
        for gold in ("0", "1")
        for text in (f"it shows {gold}",)
        for v in (Verdict.CORRECT if gold == problem.gold else Verdict.WRONG,)
    ]
    accepted = [rollout for rollout in rollouts if rollout.correct]
    rejected = [rollout for rollout in rollouts if not rollout.correct]
    write_rollouts(corpus.accepted_file, accepted)
    write_rollouts(corpus.validation_file, accepted[:10])
    write_rollouts(preferences.chosen_file, accepted)
    write_rollouts(preferences.rejected_file, rejected)
    stage_context = StageContext(
        name="stage",
        seed=3,
        out_dir=policy.path,
        work_dir=root / "work",
        stage=LabStage(),
        model=ModelConfig(architecture=architecture, vocab_size=300),
        source=source,
        hardware=HardwareConfig(),
        verifier=verifier,
        tracker=PanelTracker(),
    )
    save_coin_tosser(accepted, stage_context)
    return replace(stage_context, inputs=inputs)


def save_coin_tosser(accepted: list[Rollout], context: StageContext) -> None:
    """A policy that has learned the form of an answer, and that it is 0 or 1."""
    texts = [rollout.problem.prompt + rollout.completion.text for rollout in accepted]
    tokenizer = train_tokenizer(texts, context.model.vocab_size)
    policy = build_policy(context.model.architecture, tokenizer, "float32", 0)
    learn_golds(policy, tokenizer, accepted, context, 30)


def learn_golds(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rollouts: list[Rollout],
    context: StageContext,
    steps: int,
) -> None:
    """Train on the golds alone, in a box each, and save the policy in the context's `out_dir`."""
    boxes = [Completion([], f"\\boxed{{{rollout.problem.gold}}}") for rollout in rollouts]
    examples = tokenize_rollouts(
        tokenizer,
        [replace(rollout, completion=box) for rollout, box in zip(rollouts, boxes, strict=True)],
    )
    config = optimization(
        length=f"{steps} steps", batch_size=16, learning_rate=1e-2, checkpoint_every_steps=999
    )
    documents = TokenTable.of_documents([document_of(example) for example in examples])
    train_next_token(policy, documents, tokenizer, config, context)


class PanelTracker(Tracker):
    """Refuses a metric that no panel draws and that is not said to be without one."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.keys |= metrics.keys()
        homeless = [key for key in metrics if not is_placed(key)]
        assert not homeless, f"reasoning_lab/tracking/panels.py has no place for {homeless}"


class StepTracker(Tracker):
    """Remembers which steps were trained, and in how many seconds."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}

    def log(self, metrics: Mapping[str, Any]) -> None:
        if "train/learning_rate" in metrics:
            step = metrics[GLOBAL_STEP]
            assert step not in self.seconds
            self.seconds[step] = metrics["time/step_s"]


RL = RLStage(
    problems=ProblemsConfig([1], 40),
    screen_group_size=2,
    group_size=8,
    max_new_tokens=12,
    optimization=optimization(learning_rate=3e-4),
)
STAGES: dict[str, TrainingStage] = {
    "sft": SFTStage(levels=[1], count=50, optimization=optimization()),
    "midtrain": MidtrainStage(
        row_tokens=128,
        patience=9,
        validate_every_steps=2,
        optimization=optimization(batch_size=2),
    ),
    "dpo": DPOStage(beta=0.3, sft_weight=1.0, optimization=optimization()),
    "rl": RL,
    "rl_options": replace(
        RL,
        screen_group_size=0,
        group_size=4,
        dynamic_sampling_rounds=3,
        filter=FilterConfig(hard_pass_rate=0.3, hard_rollouts=3, balance="equal"),
        rewards={
            "correctness": {"_target_": "reasoning_lab.rewards.correctness"},
            "length": {"_target_": "reasoning_lab.rewards.linear_length", "weight": 0.1},
        },
        overlong="mask",
        advantage="rloo",
        aggregation="sequence",
        kl=KLConfig(weight=0.05, estimator="k2"),
        epochs=2,
        importance=ImportanceConfig("truncate"),
    ),
    "opd": OPDStage(
        problems=ProblemsConfig([1], 40),
        teacher=FrozenPolicyConfig(stage="before"),
        reward_weight=1.0,
        group_size=4,
        max_new_tokens=12,
        policy_loss=CISPOConfig(),
        optimization=optimization(learning_rate=3e-4),
    ),
    "rl_ahead": replace(
        RL,
        screen_group_size=0,
        staleness=1,
        validation=ValidationConfig(count=5, every_steps=2),
    ),
    "rl_far_ahead": replace(
        RL,
        screen_group_size=0,
        group_size=4,
        staleness=3,
        dynamic_sampling_rounds=2,
        filter=FilterConfig(hard_pass_rate=0.3, hard_rollouts=2),
        validation=ValidationConfig(count=5, every_steps=2),
    ),
    "rl_noise": replace(RL, screen_group_size=0, rollout_noise=0.1),
    "rl_bfloat16": replace(RL, screen_group_size=0, staleness=1, rollout_dtype="bfloat16"),
    "rl_ahead_noise": replace(RL, screen_group_size=0, staleness=2, rollout_noise=0.1),
    # Groups of two tosses are often of one verdict, and then their prompts rest.
    "rl_curriculum": replace(
        RL,
        screen_group_size=0,
        group_size=2,
        staleness=2,
        dynamic_sampling_rounds=1,
        curriculum=CurriculumConfig(
            "learnability", half_life_steps=3.0, rest_steps=2, rest_rollouts=2
        ),
    ),
    # Hot, so that completions end at different lengths; in every step some are shorter.
    "rl_partial": replace(
        RL,
        screen_group_size=0,
        group_size=4,
        max_new_tokens=24,
        temperature=TemperatureConfig(start=1.6, end=1.4),
        signal="reward",
        rewards={"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
        staleness=4,
        partial_rollouts="continue",
        validation=ValidationConfig(count=5, every_steps=2),
    ),
}
# Its steps are so large that the best weights are seldom the last.
WILD = optimization(learning_rate=3e-2, schedule=ConstantConfig())
COINS = OfflineValidationConfig(
    count=5, every_steps=2, samples=4, temperature=1.0, max_new_tokens=12, levels=[1]
)
STAGES |= {
    "sft_best": replace(
        STAGES["sft"],
        weights="best_loss",
        keep_last=True,
        validate_every_steps=4,  # type: ignore[call-arg]
        validation=COINS,
        optimization=WILD,
    ),
    "midtrain_best": replace(
        STAGES["midtrain"],
        weights="best_loss",
        validate_every_steps=1,  # type: ignore[call-arg]
        optimization=replace(WILD, learning_rate=1e-1),
    ),
    "dpo_best": replace(
        STAGES["dpo"],
        weights="best_pass@1",
        validation=replace(COINS, every_steps=4),
        optimization=replace(WILD, learning_rate=1e-3),
    ),
    "rl_best": replace(
        RL,
        screen_group_size=0,
        weights="best_pass@1",
        validation=COINS,
        optimization=replace(WILD, learning_rate=1e-2),
    ),
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def trained(
    name: str,
    context: StageContext,
    folder: Path,
    config: LabStage | None = None,
    ledger: Ledger | None = None,
) -> Metrics:
    """Run a stage into `folder/out` with checkpoints in `folder/work`, as the runner seeds it."""
    out_dir = folder / "out"
    out_dir.mkdir(parents=True)
    pl.seed_everything(context.seed, verbose=False)
    places: dict[str, Any] = {"out_dir": out_dir, "work_dir": folder / "work"}
    return run_stage(config or STAGES[name], replace(context, **places, ledger=ledger or Ledger()))


def run_stage(stage: LabStage, context: StageContext) -> Metrics:
    """Run `stage` in a context that may hold inputs which it does not consume.

    What it names besides is the policy that comes in.
    """
    consumed_kinds = {artifact.kind for artifact in stage.consumes}
    inputs = {kind: artifact for kind, artifact in context.inputs.items() if kind in consumed_kinds}
    if named := stage.named_inputs():
        inputs |= dict.fromkeys(named, context.inputs[Policy.kind])
    return replace(context, stage=stage, inputs=inputs).run_stage()


def assert_same(left: Path, right: Path) -> None:
    ours, theirs = weights(left / "out"), weights(right / "out")
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def saved_states(
    name: str, context: StageContext, folder: Path, config: LabStage | None = None
) -> tuple[Metrics, list[Path]]:
    """The whole run's metrics, and for each state that it saved a folder with that one alone."""
    state_folders: list[Path] = []

    def keep_state(draft: Path, stem: str) -> Path:
        path = rename_with_checksum(draft, stem)
        state_folders.append(folder / stem)
        states = state_folders[-1] / "work" / path.parent.name
        states.mkdir(parents=True)
        for kept in (path, *path.parent.glob("best-*")):
            shutil.copy(kept, states)
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "rename_with_checksum", keep_state)
        return trained(name, context, folder, config), state_folders
