"""What training would misread is refused at load, and the option that it names computes it."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.tokens.batches import completion_batch, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.kernels import logit_chunks
from reasoning_lab.kernels.binding import (
    bind_kernels,
    has_kernels,
    mix_precision,
    pads_documents,
    reference_kernels,
)
from reasoning_lab.kernels.logprobs import mean_logprob, token_logprobs, trained_logits
from reasoning_lab.kernels.rows import model_rows
from reasoning_lab.models.policy import load_policy, save_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import prompt_tokens, tokenize_rollouts
from reasoning_lab.sampling.config import HFEngineConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.midtrain.stage import MidtrainStage
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.probe import check_student
from reasoning_lab.types import Example, UserError
from tests.support.families import LEAKING, PLAIN, SCALED, STATEFUL, family_model
from tests.support.stages import (  # noqa: F401
    context,
    optimization,
    source,
    trained,
    verifier,
    weights,
)
from tests.support.tensors import embedding, gradient_of

HARDWARE = HardwareConfig()
REFERENCE = HardwareConfig(kernels="reference")
UNCACHED = HardwareConfig(sampling=SamplingHardwareConfig(cache=False))
SFT = SFTStage(levels=[1], count=60, optimization=optimization(length="1 steps", batch_size=60))
MIDTRAIN = MidtrainStage(
    row_tokens=128, patience=9, validate_every_steps=2, optimization=optimization(batch_size=2)
)
# One of each kind; the others take the long suite.
SHOWN = (
    *("llama", "qwen3", "gemma3_text", "mixtral", "gpt2", "gemma2", "granite", "gpt_oss"),
    *("bloom", "mamba", "lfm2", "falcon_h1"),
)
LEAKING_ALONE = tuple(family for family in LEAKING if family not in SCALED)
DOCUMENTS = [Example([5, 6, 7], [8, 9, 10, 11]), Example([12, 13], [14, 15, 16, 17, 18, 19])]


def families(*names: str) -> list[object]:
    return [name if name in SHOWN else pytest.param(name, marks=pytest.mark.long) for name in names]


def bound(family: str, *arguments: Any, **options: Any) -> PreTrainedModel:
    model = family_model(family, *arguments, **options)
    bind_kernels(model)
    return model


def refusal(model: PreTrainedModel, hardware: HardwareConfig = HARDWARE) -> str:
    """The sentence; empty where the model trains."""
    try:
        check_student(model, hardware, "midtrain")
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("family", families(*PLAIN, *LEAKING_ALONE))
def test_what_is_computed_right_is_not_refused(family: str) -> None:
    model = bound(family)
    assert refusal(model) == ""
    assert not pads_documents(model)


@pytest.mark.parametrize("family", families(*SCALED))
def test_a_difference_is_refused_with_the_option_that_removes_it(family: str) -> None:
    model = bound(family)
    sentence = refusal(model)
    assert family in sentence
    assert sentence.endswith("set hardware.kernels=reference")
    assert has_kernels(model)
    with reference_kernels(model):
        assert refusal(model) == ""


def shift_states(model: PreTrainedModel) -> None:
    """Have each state run on into the next token's, as in a convolution: causal, and it leaks."""

    def shifted(module: nn.Module, inputs: object, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        moved = states + 0.1 * nn.functional.pad(states, (0, 0, 1, 0))[:, :-1]
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    model.get_submodule("model.layers.0").register_forward_hook(shifted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_documents_that_would_read_each_other_are_padded(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model, batch = bound("llama", dtype), completion_batch(DOCUMENTS)
    assert len(model_rows(model, batch).sources) == 1
    shift_states(model)
    caplog.set_level("INFO")
    assert refusal(model) == ""
    assert pads_documents(model)
    assert "stages.midtrain: 'llama' mixes documents of one row, so it reads them padded" in (
        caplog.text
    )
    assert len(model_rows(model, batch).sources) == len(DOCUMENTS)
    with torch.no_grad():
        expected = torch.cat([by_hand(model, document) for document in DOCUMENTS])
        near = 1e-5 if dtype == torch.float32 else 5e-2
        torch.testing.assert_close(token_logprobs(model, batch), expected, rtol=near, atol=near)


def test_padded_rows_that_differ_are_refused_without_an_option() -> None:
    """A layer that mixes the rows of a batch."""
    model = bound("llama")

    def mixed(module: nn.Module, inputs: object, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        moved = states + 0.1 * states.roll(1, 0) * (len(states) > 1)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    shift_states(model)
    model.get_submodule("model.layers.0").register_forward_hook(mixed)
    sentence = refusal(model)
    assert "padded rows change a document's logprobs" in sentence
    assert sentence.endswith("choose another model, as no option computes this one")


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed"])
def test_bfloat16_hides_no_leak(dtype: str) -> None:
    def built(family: str) -> PreTrainedModel:
        mixed = dtype == "mixed"
        model = bound(family, torch.float32 if mixed else torch.bfloat16)
        mix_precision(model, mixed)
        return model

    assert refusal(built("llama")) == ""
    assert refusal(built("gpt2")) == ""
    assert refusal(built("lfm2")) == ""
    assert "kernels=reference" in refusal(built("gemma2"))
    leaks = built("llama")
    shift_states(leaks)
    assert refusal(leaks) == ""
    assert pads_documents(leaks)


def test_a_small_error_of_one_head_is_seen() -> None:
    """A bias that the model adds behind its vocabulary projection, of a hundredth of a nat."""
    model = bound("llama")
    forward = model.forward

    def biased(*args: object, **options: object) -> object:
        output = forward(*args, **options)
        output.logits = output.logits + torch.linspace(0, 0.01, output.logits.shape[-1])
        return output

    assert refusal(model) == ""
    model.forward = biased
    assert "hardware.kernels=reference" in refusal(model)


def test_logits_by_parts_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", 300 * 4)
    assert refusal(bound("llama")) == ""
    assert "hardware.kernels=reference" in refusal(bound("gemma2"))


def test_a_forward_that_fails_is_one_sentence() -> None:
    model = family_model("gpt2", n_positions=4, max_position_embeddings=4)
    assert "its own forward fails (IndexError" in refusal(model)
    assert refusal(model).endswith("choose another model, as no option computes this one")


def test_the_probe_leaves_no_trace() -> None:
    model = bound("llama").train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    assert refusal(model) == ""
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert all(parameter.grad is None for parameter in model.parameters())


def by_hand(model: PreTrainedModel, document: Example, temperature: float = 1.0) -> Tensor:
    """Logprobs of the completion, of the model's own forward."""
    tokens = torch.tensor([[*document.prompt_ids, *document.completion_ids]])
    logits = model(input_ids=tokens, use_cache=False).logits[0].float()
    logprobs = torch.log_softmax(logits / temperature, -1)
    start = len(document.prompt_ids)
    return logprobs[start - 1 : -1].gather(1, tokens[0, start:, None])[:, 0]


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere", "falcon_h1"])
def test_reference_kernels_are_the_models_own_forward(family: str) -> None:
    model = family_model(family, initializer_range=0.3)
    batch = completion_batch(DOCUMENTS)
    expected = torch.cat([by_hand(model, document) for document in DOCUMENTS])
    loss = -mean_logprob(model, batch)
    torch.testing.assert_close(loss, -expected.mean(), rtol=1e-5, atol=1e-5)
    loss.backward()
    gradient = gradient_of(embedding(model)).clone()
    model.zero_grad()
    (-expected.mean()).backward()
    torch.testing.assert_close(gradient, gradient_of(embedding(model)), rtol=1e-3, atol=1e-5)
    sharp = torch.cat([by_hand(model, document, 0.6) for document in DOCUMENTS])
    logprobs = token_logprobs(model, batch, 0.6)
    torch.testing.assert_close(logprobs, sharp, rtol=1e-5, atol=1e-5)
    logits, targets = trained_logits(model, batch)
    chosen = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(chosen, expected, rtol=1e-5, atol=1e-5)
    bind_kernels(model)
    wrong = token_logprobs(model, batch)
    assert (wrong - expected).abs().max() > 0.05


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "opt", "bloom", "mamba"])
@pytest.mark.parametrize("part", list(TrainedPart))
def test_documents_of_a_batch_have_the_loss_of_documents_alone(family: str, part: str) -> None:
    model = bound(family, initializer_range=0.3)
    trained_part = TrainedPart(part)
    whole = [
        replace(one, prompt_ids=ids[:1], completion_ids=ids[1:])
        if trained_part is TrainedPart.SEQUENCE
        else one
        for one in DOCUMENTS
        for ids in [[*one.prompt_ids, *one.completion_ids]]
    ]
    batch = token_batch([document_of(one, trained=trained_part) for one in DOCUMENTS])
    with torch.no_grad():
        expected = torch.cat([by_hand(model, document) for document in whole]).mean()
        loss = mean_logprob(model, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def stage_context(context: StageContext, folder: Path, family: str, **options: Any) -> StageContext:  # noqa: F811
    """A context whose policy is a twin of that family, under the policy's own tokenizer."""
    _, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    policy = family_model(family, vocab_size=len(tokenizer), **ids, **options)
    save_policy(policy, tokenizer, folder / "policy")
    return replace(context, inputs={**context.inputs, "policy": Policy(folder / "policy")})


@pytest.mark.parametrize("family", families("gemma2", "cohere", "cohere2"))
def test_a_stage_refuses_and_trains_with_the_option(
    family: str,
    context: StageContext,  # noqa: F811
    tmp_path: Path,
) -> None:
    given = stage_context(context, tmp_path, family, initializer_range=0.3)
    with pytest.raises(UserError, match=r"stages.stage: .* set hardware.kernels=reference$"):
        trained("sft", given, tmp_path / "fused")
    trained("sft", replace(given, hardware=REFERENCE), tmp_path / "reference", SFT)
    model, examples = corpus_of(given)
    with torch.no_grad():
        logprobs = torch.cat([by_hand(model, example) for example in examples])
    assert len(examples) == 60
    assert first_loss(tmp_path / "reference") == pytest.approx(-float(logprobs.mean()), rel=1e-5)


@pytest.mark.parametrize("family", families("gpt_oss", "opt", "mpt"))
def test_midtraining_pads_documents_of_a_family_that_leaks(
    family: str,
    context: StageContext,  # noqa: F811
    tmp_path: Path,
) -> None:
    given = stage_context(context, tmp_path, family, initializer_range=0.3)
    rows = trained("midtrain", context, tmp_path / "llama", MIDTRAIN)["rows"]
    # One batch holds all rows, so the loss is the mean over the corpus.
    whole = optimization(length="1 step", batch_size=rows)
    config = replace(MIDTRAIN, validate_every_steps=1, optimization=whole)
    trained("midtrain", given, tmp_path / "padded", config)
    model, examples = corpus_of(given)
    whole_documents = [
        Example(ids[:1], ids[1:])
        for example in examples
        for ids in [[*example.prompt_ids, *example.completion_ids]]
    ]
    with torch.no_grad():
        logprobs = torch.cat([by_hand(model, document) for document in whole_documents])
    assert first_loss(tmp_path / "padded") == pytest.approx(-float(logprobs.mean()), rel=1e-5)


@pytest.mark.parametrize(
    "stage", ["dpo", *(pytest.param(name, marks=pytest.mark.long) for name in ("sft", "midtrain"))]
)
def test_reference_kernels_train_the_same_policy(
    stage: str,
    context: StageContext,  # noqa: F811
    tmp_path: Path,
) -> None:
    trained(stage, context, tmp_path / "fused")
    trained(stage, replace(context, hardware=REFERENCE), tmp_path / "reference")
    fused, plain = weights(tmp_path / "fused" / "out"), weights(tmp_path / "reference" / "out")
    for key, value in fused.items():
        torch.testing.assert_close(plain[key], value, rtol=0, atol=1e-4)


def corpus_of(context: StageContext) -> tuple[PreTrainedModel, list[Example]]:  # noqa: F811
    model, tokenizer = load_policy(context.inputs["policy"].path, "float32", kernels="reference")
    rollouts = read_rollouts(context.inputs["corpus"].path / "accepted.parquet")
    return model, tokenize_rollouts(tokenizer, list(rollouts))


def first_loss(folder: Path) -> float:
    rows = pq.read_table(folder / "out" / "history.parquet").to_pylist()
    losses = {row["step"]: row["value"] for row in rows if row["metric"] == "train/loss"}
    return float(losses[0])


@pytest.mark.parametrize("family", ["mamba", "lfm2", "falcon_h1"])
def test_an_engine_with_another_cache_is_refused(
    family: str,
    context: StageContext,  # noqa: F811
    tmp_path: Path,
) -> None:
    assert family in STATEFUL
    given = stage_context(context, tmp_path, family)
    with pytest.raises(UserError, match=r"set hardware.sampling.cache=false$"):
        given.sampler(*given.load_policy(Policy(given.inputs["policy"].path)))
    with pytest.raises(UserError, match=r"^engine.model: .* set hardware.sampling.cache=false$"):
        HFEngineConfig(str(given.inputs["policy"].path)).open(HARDWARE)
    right = replace(given, hardware=UNCACHED)
    policy, tokenizer = right.load_policy(Policy(right.inputs["policy"].path))
    drawn = right.sampler(policy, tokenizer).generate(
        ["one", "one", "a longer question"], Sampling(0.8, 1.0, 6), [1, 2, 3]
    )
    prompts = prompt_tokens(tokenizer, ["one", "one", "a longer question"])
    for prompt, completion in zip(prompts, drawn, strict=True):
        with torch.no_grad():
            expected = by_hand(policy, Example(prompt, completion.token_ids), 0.8)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-4)
