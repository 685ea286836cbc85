"""Memory from a config against real models: their parameters, and what autograd really keeps."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reasoning_lab.commands.plan import planned
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.tokens.batches import token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.kernels import logit_chunks
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels, mix_precision
from reasoning_lab.kernels.logprobs import mean_logprob, token_logprobs, trained_logits
from reasoning_lab.losses.next_token import next_token_loss
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.models.footprint import (
    attention_widths,
    footprint,
    is_known,
    largest_module_count,
    lora_parameter_count,
    parameter_count,
)
from reasoning_lab.types import Example
from tests.conftest import Compose, lab_here

ADAMW = "torch.optim.AdamW"
VOCAB = 300
CPU, GPU = HardwareConfig(), HardwareConfig("gpu")


def architecture(family: str, **changes: Any) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        **changes,
    }


def built(options: dict[str, Any]) -> PreTrainedModel:
    config = {key: value for key, value in options.items() if key != "model_type"}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = AutoConfig.for_model(options["model_type"], vocab_size=VOCAB, **special, **config)
    causal_lm: PreTrainedModel = AutoModelForCausalLM.from_config(model).float()
    bind_kernels(causal_lm)
    return causal_lm


@pytest.mark.parametrize("family", ["llama", "mistral", "phi3", "qwen2", "qwen3"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "head_dim": 16}])
def test_parameters_are_transformers_own(family: str, changes: dict[str, Any]) -> None:
    options = architecture(family, **changes)
    parameters = sum(parameter.numel() for parameter in built(options).parameters())
    assert parameter_count(options, VOCAB) == parameters


@pytest.mark.parametrize("family", ["llama", "mistral", "phi3", "qwen2", "qwen3"])
@pytest.mark.parametrize("hidden", [64, 320])
def test_largest_module_is_transformers_own(family: str, hidden: int) -> None:
    """At 64 the table of 300 tokens, or gate and up in one; at 320 queries with a bias too."""
    options = architecture(family, hidden_size=hidden)
    modules = built(options).modules()
    largest = max(sum(p.numel() for p in m.parameters(recurse=False)) for m in modules)
    assert largest_module_count(options, VOCAB) == largest


@pytest.mark.parametrize("family", ["llama", "mistral", "phi3", "qwen2", "qwen3"])
def test_adapters_are_pefts_own(family: str) -> None:
    peft = pytest.importorskip("peft")
    options = architecture(family, head_dim=24)
    adapted = peft.get_peft_model(
        built(options), peft.LoraConfig(r=6, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert lora_parameter_count(options, 6) == trained
    with_adapters = footprint(options, VOCAB, "float32", ADAMW, CPU, lora_rank=6)
    assert with_adapters is not None
    assert with_adapters.parameters == parameter_count(options, VOCAB) + trained
    assert with_adapters.weights == 4 * with_adapters.parameters
    assert with_adapters.gradients == 4 * trained
    assert with_adapters.optimizer == 2 * 4 * trained


def test_each_strategy_keeps_its_share() -> None:
    """Bytes a parameter on each of four devices, bfloat16: by hand from what each divides."""
    options = architecture("llama")
    expected = {
        "single": (2, 2, 0, 4),
        "ddp": (2, 2 + 2, 0, 4),
        "fsdp": (2 / 4, 2 / 4, 0, 4 / 4),
        "deepspeed1": (2, 2 + 4 / 4, 4 / 4, 8 / 4),
        "deepspeed2": (2, 2 / 4 + 4 / 4, 4 / 4, 8 / 4),
        "deepspeed3": (2 / 4, 4 / 4, 4 / 4, 8 / 4),
    }
    parameters = parameter_count(options, VOCAB)
    for strategy, shares in expected.items():
        four = HardwareConfig("gpu", devices=4, strategy=strategy)
        estimate = footprint(options, VOCAB, "bfloat16", ADAMW, four)
        assert estimate is not None
        stored = (estimate.weights, estimate.gradients, estimate.master, estimate.optimizer)
        assert stored == tuple(int(share * parameters) for share in shares), strategy
    four = HardwareConfig("gpu", devices=4, strategy="fsdp")
    mixed = footprint(options, VOCAB, "mixed", ADAMW, four)
    assert mixed is not None
    # Weights, gradients and two moments, all in float32.
    assert mixed.states == 4 * 4 * parameters // 4 + mixed.gathered


def batch_of(rows: str, tokens: int) -> TokenBatch:
    """Four documents of so many tokens, or twelve in their place, of a half or a quarter of it."""
    half, quarter = tokens // 2, tokens // 4
    lengths = [half, quarter, quarter] * 4 if rows == "packed" else [tokens] * 4
    drawn = [torch.randint(3, VOCAB, (length,)).tolist() for length in lengths]
    part = TrainedPart.SEQUENCE
    return token_batch([document_of(Example([], ids), trained=part) for ids in drawn])


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize("head_dim", [16, 64])
@pytest.mark.parametrize("rows", ["whole", "packed"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("mistral", {}),
        ("phi3", {}),
        ("phi3", {"partial_rotary_factor": 0.5}),
        ("qwen2", {}),
        ("qwen3", {}),
    ],
)
def test_activations_are_what_autograd_keeps(
    family: str, changes: dict[str, Any], rows: str, head_dim: int, dtype: str
) -> None:
    options = architecture(family, head_dim=head_dim, **changes)
    model = built(options)
    if dtype == "mixed":
        mix_precision(model)
    of_parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_parameters:
            saved[storage.data_ptr()] = tensor
        return tensor

    batch = batch_of(rows, tokens=200)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logprobs(model, batch)
    size = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    estimate = footprint(options, VOCAB, dtype, ADAMW, CPU, packed=rows == "packed")
    assert estimate is not None
    products = [
        weight.numel()
        for name, weight in model.named_parameters()
        if name.endswith(("proj.weight", "lm_head.weight"))
    ]
    assert estimate.casts == (2 * sum(products) if dtype == "mixed" else 0)
    measured = (size - estimate.casts) / batch.input_ids.numel()
    # Autograd keeps the log-probabilities; the logits and a gradient of theirs are there as well.
    estimated = estimate.activations_per_token + estimate.logits_per_token
    assert estimated == pytest.approx(measured + 2 * 4 * VOCAB, rel=0.05)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", ["llama", "phi3", "qwen3"])
def test_peak_is_what_torchs_own_tracker_sees(family: str, checkpointed: bool) -> None:
    """A whole step of the second kind: gradients of the one before are there at the loss."""
    options = architecture(family, num_hidden_layers=8)
    model = built(options).train()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters())
    batch = batch_of("whole", tokens=100)

    def step() -> None:
        loss = next_token_loss(*trained_logits(model, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        step()
    (measured,) = (device["Total"] for device in tracker.get_tracker_snapshot("peak").values())
    hardware = HardwareConfig(activation_checkpointing=checkpointed)
    estimate = footprint(options, VOCAB, "float32", ADAMW, hardware)
    assert estimate is not None
    assert estimate.peak(batch.input_ids.numel()) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["mean", "tokens"])
def test_peak_with_logits_of_some_tokens_at_a_time(
    loss: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all that torch allocates from the model's first weight on, inside operations too."""
    monkeypatch.setattr(logit_chunks, "LOGITS_AT_ONCE", 100 * VOCAB)
    options = architecture("llama")
    batch = batch_of("whole", tokens=300)

    def steps() -> None:
        model = built(options).train().to(getattr(torch, dtype))
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            value = mean_logprob if loss == "mean" else token_logprobs
            total = value(model, batch).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        steps()
    assert profiled.profiler is not None
    pending = list(profiled.profiler.kineto_results.experimental_event_tree())
    allocations: list[Any] = []
    while pending:
        event = pending.pop()
        pending += event.children
        if hasattr(event.typed[1], "total_allocated"):
            allocations.append(event)
    # The profiler counts on from where another profile in this process ended.
    first = min(allocations, key=lambda event: event.start_time_ns).typed[1]
    before = first.total_allocated - first.alloc_size
    measured = max(event.typed[1].total_allocated for event in allocations) - before
    estimate = footprint(options, VOCAB, dtype, ADAMW, CPU)
    assert estimate is not None
    assert estimate.peak(batch.input_ids.numel()) == pytest.approx(measured, rel=0.15)


def test_phi4_mini_from_its_config_alone(composed: Compose) -> None:
    """3.84 billion parameters, as its model card says; bfloat16 takes two bytes each."""
    recipe = composed("model=phi4_mini", "ablate=pretrain")
    node = next(node for node in planned([recipe]) if node.stage == "rl")
    assert node.memory is not None
    assert node.memory.copies == 2 * node.memory.parameters
    alone = composed("model=phi4_mini", "ablate=pretrain", "stages.rl.kl.log_every_steps=0")
    (without,) = (node.memory for node in planned([alone]) if node.stage == "rl")
    assert without == replace(node.memory, copies=0)
    # In mixed precision rollouts are drawn from a whole bfloat16 copy; the reference is float32.
    mixed = composed("model=phi4_mini", "ablate=pretrain", "model.dtype=mixed")
    (both,) = (node.memory for node in planned([mixed]) if node.stage == "rl")
    assert both is not None
    assert both.copies == (4 + 2) * both.parameters
    # So they are where `rollout_dtype` says so, and of a policy in bfloat16 it says nothing new.
    for dtype, copies in (("float32", 4 + 2), ("bfloat16", 2)):
        words = (f"model.dtype={dtype}", "stages.rl.rollout_dtype=bfloat16")
        said = composed("model=phi4_mini", "ablate=pretrain", *words)
        (memory,) = (node.memory for node in planned([said]) if node.stage == "rl")
        assert memory is not None
        assert memory.copies == copies * memory.parameters
    # One copy is apart and in bfloat16, and so are the weights that wait for it to sample.
    for staleness, copies in ((1, 4 + 2), (4, 4 + 5 * 2)):
        words = ("model.dtype=mixed", f"stages.rl.staleness={staleness}")
        ahead = composed("model=phi4_mini", "ablate=pretrain", *words)
        (memory,) = (node.memory for node in planned([ahead]) if node.stage == "rl")
        assert memory is not None
        assert memory.copies == copies * memory.parameters
    assert node.memory.parameters == pytest.approx(3.84e9, rel=0.005)
    assert node.memory.weights == node.memory.gradients == 2 * node.memory.parameters
    assert node.memory.optimizer == 2 * 2 * node.memory.parameters
    assert (node.price.wall_s, node.price.measured) == (Bounds(), False)


def test_plan_knows_that_norms_in_bfloat16_keep_less_on_a_gpu(composed: Compose) -> None:
    """model=tiny: a value fewer for each of its norms, of 128 channels, four queries, two keys."""

    def activations(accelerator: str) -> int:
        (node,) = (
            node
            for node in planned(
                [composed("model=tiny", "model.dtype=bfloat16", f"hardware={accelerator}")]
            )
            if node.stage == "sft"
        )
        assert node.memory is not None
        return node.memory.activations_per_token

    assert activations("cpu") - activations("gpu") == 2 * (4 * (2 * 128 + 4 * 32 + 2 * 32) + 128)


@pytest.mark.parametrize(
    ("family", "apart", "joined"), [("llama", 1, 0), ("qwen3", 1, 0), ("phi3", 0, -1)]
)
def test_only_documents_that_are_not_joined_are_put_together(
    family: str, apart: int, joined: int
) -> None:
    """Copies of the output, of documents beside one; phi3's is copied then, but not if joined."""
    options = architecture(family, partial_rotary_factor=0.5)
    queries, layers = attention_widths(options)[0], options["num_hidden_layers"]

    def more(dtype: str, hardware: HardwareConfig) -> int:
        estimates = [
            footprint(options, VOCAB, dtype, ADAMW, hardware, packed=packed)
            for packed in (True, False)
        ]
        packed, whole = (
            estimate.activations_per_token for estimate in estimates if estimate is not None
        )
        return packed - whole

    assert more("float32", CPU) == more("float32", GPU) == apart * 4 * layers * queries
    assert more("bfloat16", GPU) == more("mixed", GPU) == joined * 2 * layers * queries


def test_a_gpu_has_more_logits_at_once() -> None:
    """Of 2**27 and of 2**25 values, in float32 three times; tokens by hand."""
    options = {**architecture("llama"), "vocab_size": 200_064}
    for hardware, tokens in ((CPU, 167), (GPU, 670)):
        estimate = footprint(options, 0, "bfloat16", ADAMW, hardware)
        assert estimate is not None
        assert estimate.loss(2 * tokens) == tokens * 3 * 4 * 200_064 + estimate.head
        # One more makes three parts, of which six eighths have room.
        third = 6 * (tokens // 8)
        assert estimate.loss(2 * tokens + 1) == third * 3 * 4 * 200_064 + estimate.head


def test_a_local_checkpoint_is_reckoned_by_its_own_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    content = json.dumps({**architecture("llama"), "vocab_size": VOCAB})
    (tmp_path / "mine" / "config.json").write_text(content)
    assert lab_here("plan", "ablate=pretrain", "model.path=mine", cwd=tmp_path) == 0
    out = capsys.readouterr().out
    assert f"{parameter_count(architecture('llama'), VOCAB) / 1e6:.1f}M parameters" in out


def test_what_is_not_known_is_not_guessed() -> None:
    assert footprint({"model_type": "gpt2"}, VOCAB, "float32", ADAMW, CPU) is None
    assert footprint(architecture("llama"), VOCAB, "float32", "torch.optim.LBFGS", CPU) is None


@pytest.mark.parametrize(
    "size", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_a_config_without_a_size_is_not_estimated(size: str) -> None:
    options = architecture("llama")
    assert is_known(options)
    del options[size]
    assert not is_known(options)
    assert footprint(options, VOCAB, "float32", ADAMW, CPU) is None
