"""The whole recipe from a checkpoint of each kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from reasoning_lab.commands import api as lab
from reasoning_lab.commands.compose import compose
from reasoning_lab.config.optimization import OptimizationConfig
from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.graph.record import Record
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.tokenizer import tokenize
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.next_token_training import train_next_token
from reasoning_lab.types import Completion
from reasoning_lab.verify import Verifier
from tests.conftest import lab_here
from tests.support.composition import composed_config
from tests.support.contexts import data_context
from tests.support.families import architecture
from tests.support.sources import file_source
from tests.support.twins import TWINS, Twin, save_twin, twin_model, twin_tokenizer

COINS = [(f"coin {n}", str(n % 2)) for n in range(200)]
STAGES = ["distill", "midtrain", "sft", "prefer", "dpo", "rl", "opd"]
RUN = [
    "model=checkpoint",
    "model.path=checkpoint",
    "~stages.pretrain",
    "data=jsonl",
    "data.path=coins.jsonl",
    "data.rows.solutions=solution",
    "teacher@stages.distill.teacher=recorded",
    "+stage@stages.opd=opd",
    *(f"stages.{name}.problems.stream=[0,1]" for name in ("distill", "prefer", "rl", "opd")),
    "stages.distill={problems: {levels: [1], count: 60}, validation: 8, rollouts: 1}",
    "stages.midtrain={row_tokens: 128, validate_every_steps: 2, optimization: {length: 2 steps}}",
    "stages.sft={levels: [1], count: 40, optimization: {length: 2 steps, batch_size: 8}}",
    "stages.prefer={problems: {levels: [1], count: 40}, group_size: 6}",
    "stages.prefer.sampling={max_new_tokens: 12}",
    "stages.dpo.optimization={length: 2 steps, batch_size: 4}",
    "stages.rl={problems: {levels: [1], count: 16}, screen_group_size: 0, group_size: 6}",
    "stages.rl={max_new_tokens: 12, optimization: {length: 2 steps, batch_size: 8}}",
    # Warm, so that updates interrupt some rollouts. The weights stay, so that their tokens keep
    # their logprobs.
    "stages.opd={problems: {levels: [1], count: 16}, group_size: 4, max_new_tokens: 12}",
    "stages.opd={temperature: {start: 1.2, end: 1.2}, teacher: {stage: sft}}",
    "stages.opd={staleness: 4, partial_rollouts: continue}",
    "stages.opd.optimization={length: 4 steps, batch_size: 4, learning_rate: 0.0}",
    # So gentle that the coin tosser of the checkpoint is one at the end.
    *(f"stages.{name}.optimization.learning_rate=1e-5" for name in ("midtrain", "sft", "dpo")),
    "benchmarks.heldout={levels: [1], count: 10, samples: 1, sampling: {max_new_tokens: 12}}",
    "tracker.mode=disabled",
    "hardware.threads=1",
]


def write_coins(folder: Path) -> None:
    rows = [
        {"prompt": prompt, "gold": gold, "solution": f"it shows \\boxed{{{gold}}}"}
        for prompt, gold in COINS
    ]
    (folder / "coins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_coin_tosser(twin: Twin, folder: Path, work: Path, kernels: str = "fused") -> None:
    """A twin as it lies on the hub, but trained to answer 0 or 1, whatever the question."""
    texts = [f"{prompt} it shows \\boxed{{{gold}}}" for prompt, gold in COINS]
    raw = twin_tokenizer(twin, texts)
    save_twin(twin_model(twin, raw), raw, folder)
    model, tokenizer = load_policy(folder, "float32", kernels=kernels)
    # A thought that the template opens is closed at once.
    examples = tokenize(
        tokenizer,
        [prompt for prompt, _ in COINS],
        [Completion([], f"\\boxed{{{gold}}}") for _, gold in COINS],
    )
    documents = TokenTable.of_documents([document_of(example) for example in examples])
    training = OptimizationConfig(learning_rate=1e-2, length="40 steps", batch_size=16)
    work.mkdir()
    source = file_source(folder.parent / "coins.jsonl")
    context = data_context(work, "coins", source, Verifier(1, timeout_s=20, memory_mb=1024))
    # The checkpoint's own, which training's writes beside the policy would change.
    raw_ends, tokenizer.pad_token = model.generation_config, tokenizer.eos_token
    train_next_token(model, documents, tokenizer, training, context)
    model.generation_config = raw_ends
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return composed_config(*RUN)


@pytest.mark.parametrize(
    "name",
    [name if name == "phi4_mini" else pytest.param(name, marks=pytest.mark.long) for name in TWINS],
)
def test_every_stage_runs_from_a_checkpoint_of_the_kind(
    name: str, config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coins(tmp_path)
    save_coin_tosser(TWINS[name], tmp_path / "checkpoint", tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    lab.run(compose(config))
    records = artifacts(tmp_path)
    assert records.keys() == {*STAGES, "evaluate"}
    assert records["dpo"].metrics["pairs"] > 4
    assert records["rl"].metrics["train_tokens"] > 0
    assert_graded_by_its_teacher(records["opd"].path)
    interrupted = read_history(records["opd"].path)["rollout/interrupted_frac"]
    assert max(interrupted.values()) > 0.1
    # It still says where its answers end.
    assert records["evaluate"].metrics["truncated_frac"] < 0.5
    before, _ = load_policy(tmp_path / "checkpoint", "float32")
    after, tokenizer = load_policy(records["rl"].path, "float32")
    assert tokenizer.eos_token == TWINS[name].turn_end
    assert {"<think>", "</think>"} <= tokenizer.get_vocab().keys()
    assert after.config.rope_parameters == before.config.rope_parameters
    learned = dict(after.named_parameters())
    for key, old in before.named_parameters():
        assert not torch.equal(learned[key][: len(old)], old), key


REFERENCE = "hardware.kernels=reference"
UNCACHED = "hardware.sampling.cache=false"


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gemma2", [REFERENCE]),
        ("granite", [REFERENCE]),
        ("cohere", [REFERENCE]),
        ("opt", []),
        ("bloom", []),
        ("gpt_oss", []),
        ("mamba", [UNCACHED]),
        ("falcon_h1", [REFERENCE, UNCACHED]),
    ],
)
def test_every_stage_runs_with_the_options_that_the_refusals_name(
    family: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coins(tmp_path)
    twin = replace(TWINS["smollm2"], architecture=architecture(family))
    kernels = "reference" if REFERENCE in options else "fused"
    save_coin_tosser(twin, tmp_path / "checkpoint", tmp_path / "work", kernels)
    given: list[str] = []
    while lab_here(*RUN, *given, cwd=tmp_path) != 0:
        sentence = capsys.readouterr().err.strip().splitlines()[-1]
        named = [option for option in options if option in sentence and option not in given]
        assert named, sentence
        given += named
    assert sorted(given) == sorted(options)
    records = artifacts(tmp_path)
    assert records["rl"].metrics["train_tokens"] > 0
    assert_graded_by_its_teacher(records["opd"].path)


def test_every_stage_runs_with_an_adapter(tmp_path: Path) -> None:
    """Through the command."""
    write_coins(tmp_path)
    save_coin_tosser(TWINS["llama3_2"], tmp_path / "checkpoint", tmp_path / "work")
    assert lab_here(*RUN, "model/adapter=lora", "model.adapter.rank=2", cwd=tmp_path) == 0
    records = artifacts(tmp_path)
    before = load_file(tmp_path / "checkpoint" / "model.safetensors")
    for stage in ("midtrain", "sft", "dpo", "rl"):
        after = load_file(records[stage].path / "model.safetensors")
        assert after.keys() == before.keys()
        for key, old in before.items():
            if "proj" in key:
                assert not torch.equal(after[key], old), key
        before = after


def assert_graded_by_its_teacher(folder: Path) -> None:
    """What it grades has the logprobs that it was sampled with."""
    history = read_history(folder)
    assert max(history["mismatch/logprob_difference_max"].values()) < 1e-4
    assert min(history["train/gradient_norm"].values()) > 0
    assert all(history["train/kl_to_teacher"].values())


def artifacts(folder: Path) -> dict[str, Record]:
    """By stage; of the evaluations, one of the last policy."""
    records = [Record.read(path.parent) for path in folder.glob("runs/store/*/*/artifact.json")]
    by_stage = {one.stage: one for one in records if one.kind != "evaluation"}
    evaluations = [
        one for one in records if one.inputs.get("policy") == by_stage["opd"].fingerprint
    ]
    return {**by_stage, "evaluate": evaluations[0]}
