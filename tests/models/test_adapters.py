"""LoRA and QLoRA: what trains, what is saved, what goes on after a kill."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from reasoning_lab.config.model import AdapterConfig
from reasoning_lab.config.optimization import MuonConfig
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.fused_decoder import can_decode_fused
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.adapters import (
    add_adapter,
    has_adapter,
    merged_policy,
    merged_weights,
    trainable_weights,
)
from reasoning_lab.models.policy import load_policy, save_policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Example, UserError
from tests.conftest import Compose
from tests.support.stages import STAGES, STEPS, assert_same, saved_states, trained, weights
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

LORA = AdapterConfig(rank=4, alpha=8.0)
QLORA = AdapterConfig(kind="qlora", rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    for name, twin in TWINS.items():
        tokenizer = twin_tokenizer(twin, ["coin heads tails"])
        save_twin(twin_model(twin, tokenizer), tokenizer, root / name)
    return root


def adapted(model: PreTrainedModel, config: AdapterConfig) -> PreTrainedModel:
    """As if it had learned: with an adapter that does something."""
    add_adapter(model, config, 0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch() -> Any:
    read = [Example([3, 4, 5], [6, 7, 8, 9]), Example([10], [11, 12])]
    return completion_batch(read)


@torch.no_grad()
def read_by(model: PreTrainedModel) -> torch.Tensor:
    return token_logprobs(model.eval(), batch())


@pytest.mark.parametrize("config", [LORA, QLORA], ids=["lora", "qlora"])
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in TWINS), ("phi4_mini", "bfloat16")]
)
def test_what_is_saved_is_the_adapted_policy(
    name: str, config: AdapterConfig, dtype: str, hub: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_policy(hub / name, dtype)
    before = read_by(model)
    expected = read_by(adapted(model, config))
    assert (expected - before).abs().max() > 0.05
    save_policy(model, tokenizer, tmp_path)
    assert has_adapter(model)
    again, _ = load_policy(tmp_path, dtype)
    precise = {"float32": 1e-5, "bfloat16": 0.1}[dtype]
    torch.testing.assert_close(read_by(again), expected, atol=precise, rtol=0)
    plain, _ = load_policy(hub / name, dtype)
    assert merged_weights(model).keys() == plain.state_dict().keys() == again.state_dict().keys()
    places = {"_name_or_path": ""}
    assert again.config.to_dict() | places == plain.config.to_dict() | places
    assert {value.dtype for value in merged_weights(model).values()} == {model.dtype}


def test_a_merged_weight_by_hand(hub: Path) -> None:
    """W + alpha / rank * B A = W + 8 / 4 * B A."""
    model, _ = load_policy(hub / "qwen2_5", "float32")
    old = {key: value.clone() for key, value in model.state_dict().items()}
    parts = adapted(model, LORA).state_dict()
    at = "model.layers.0.mlp.up_proj"
    product = parts[f"{at}.lora_B.default.weight"] @ parts[f"{at}.lora_A.default.weight"]
    new = merged_weights(model)
    torch.testing.assert_close(new[f"{at}.weight"], old[f"{at}.weight"] + 2 * product)
    for key in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(new[key], old[key])


def test_a_plain_policy_is_left_alone(hub: Path) -> None:
    model, _ = load_policy(hub / "llama3_2", "float32")
    assert merged_policy(model) is model
    assert trainable_weights(model).keys() == model.state_dict().keys()


@pytest.mark.parametrize("config", [LORA, QLORA], ids=["lora", "qlora"])
@pytest.mark.parametrize("name", ["qwen3", "phi4_mini"])
def test_the_engine_samples_the_adapted_policy(
    name: str, config: AdapterConfig, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On every CPU as on those for which bitsandbytes packs weights of 4 bits anew in eval mode.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model, tokenizer = load_policy(hub / name, "float32")
    adapted(model, config)
    assert not can_decode_fused(model)
    prompts = [[5, 6, 7], [8, 9]]
    completions = HFEngine(model, tokenizer, 4).complete(prompts, Sampling(1.0, 1.0, 10), [1, 2])
    for prompt, completion in zip(prompts, completions, strict=True):
        batch_of_one = completion_batch([Example(prompt, completion.token_ids)])
        expected = token_logprobs(model, batch_of_one).tolist()
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("sft_best", LORA),
        ("rl_ahead", QLORA),
        *(
            pytest.param(name, adapter, marks=pytest.mark.long)
            for name, adapter in [*((name, LORA) for name in STAGES), ("sft", QLORA)]
            if name != "sft_best"
        ),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_resumed_stage_is_the_uninterrupted_one_to_the_bit(
    name: str,
    adapter: AdapterConfig,
    context: StageContext,
    tmp_path: Path,
) -> None:
    small = replace(context, model=replace(context.model, adapter=replace(adapter, dropout=0.1)))
    _, states = saved_states(name, small, tmp_path)
    assert len(states) == STEPS
    before, after = weights(context.inputs["policy"].path), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for key in before:
        # Layers of 4 bits are written as they were read, so they all differ.
        block = "proj" in key
        assert torch.equal(before[key], after[key]) is not block, key
    for folder in states[1::2]:
        (state_file,) = (folder / "work").rglob("step-*")
        state = torch.load(state_file, weights_only=True)
        assert state["state_dict"]
        assert all("lora" in key for key in state["state_dict"])
        # The two halves of four adapters.
        (optimizer,) = state["optimizer_states"]
        assert sum(len(group["params"]) for group in optimizer["param_groups"]) == 8
        trained(name, small, folder)
        assert_same(tmp_path, folder)


def test_muon_takes_an_adapter(context: StageContext, tmp_path: Path) -> None:
    """Both halves of an adapter are hidden matrices, and nothing is left for AdamW."""
    run = STAGES["sft"]
    config = replace(run, optimization=replace(run.optimization, optimizer=MuonConfig()))
    small = replace(context, model=replace(context.model, adapter=LORA))
    _, states = saved_states("sft", small, tmp_path, config)
    trained("sft", small, states[2], config)
    assert_same(tmp_path, states[2])
    key = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(
        weights(context.inputs["policy"].path)[key], weights(tmp_path / "out")[key]
    )


def test_layers_that_are_not_there_are_named(hub: Path) -> None:
    model, _ = load_policy(hub / "phi4_mini", "float32")
    with pytest.raises(UserError, match=r"target_modules: the model has none of \['q_proj'\]"):
        add_adapter(model, AdapterConfig(target_modules=["q_proj"]), 0)


def test_only_an_adapter_that_is_there_is_part_of_what_a_policy_is(composed: Compose) -> None:
    base = ["model=qwen3_0_6b", "~stages.pretrain"]
    plain, with_lora = composed(*base), composed(*base, "model/adapter=lora")
    of = [{node.name: node for node in recipe.nodes} for recipe in (plain, with_lora)]
    assert "adapter" not in of[0]["sft"].identity["groups"]["model"]
    assert of[1]["sft"].identity["groups"]["model"]["adapter"]["rank"] == 16
    assert of[0]["sft"].fingerprint != of[1]["sft"].fingerprint
    for same in ("distill", "base/heldout"):
        assert of[0][same].fingerprint == of[1][same].fingerprint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model/adapter=lora", "model.adapter.target_modules=[lm_head]"], "'lm_head' is an emb"),
        (["model/adapter=lora", "model.adapter.rank=0"], "rank: 0 is too small"),
        (["model/adapter=lora", "model.adapter.kind=dora"], "'dora' is unknown"),
    ],
)
def test_an_impossible_adapter_is_refused(
    words: list[str], message: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=message):
        composed(*words)


@pytest.mark.parametrize(("option", "missing"), [("lora", "peft"), ("qlora", "bitsandbytes")])
def test_a_package_that_is_missing_is_named(
    option: str, missing: str, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reasoning_lab.config.components.find_spec", lambda name: None if name == missing else name
    )
    with pytest.raises(UserError, match=rf"'{missing}' is not installed"):
        composed(f"model/adapter={option}", f"seed={len(missing)}")
