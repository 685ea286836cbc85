"""Checks of the weights, and of what training and sampling compute from them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoConfig

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.doctor.check import Check, Result, not_applicable, ok, wrong
from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.doctor.tokenizer_checks import LOADS
from reasoning_lab.kernels.binding import pads_documents, reference_kernels
from reasoning_lab.kernels.logprobs import trained_logits
from reasoning_lab.models.policy import context_tokens, fix_rope_factors
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine_check import alone_logprobs, evaluating
from reasoning_lab.training.probe import Difference

_SHOWN = 3
# Of a logprob, in nats: what dropout moves, and rounding does not.
_DROPPED_OUT = 1e-2


def _rope(model: ModelUnderTest) -> Result:
    """`fix_rope_factors` refuses what it cannot make independent of a batch's length."""
    try:
        config = AutoConfig.from_pretrained(model.path, revision=model.options.revision)
    except (OSError, ValueError):
        return not_applicable("config.json cannot be read")
    fix_rope_factors(config, "model.path")
    return ok()


def _loads(model: ModelUnderTest) -> Result:
    """`load_model` refuses a folder without whole safetensors, or of an unknown architecture."""
    assert model.policy is not None
    return ok()


def _missing(model: ModelUnderTest) -> Result:
    report = model.load_report
    if report.missing:
        return wrong(
            f"model.path: the checkpoint lacks {_named(report.missing)}, which are random now; "
            "correct config.json, or export the checkpoint anew"
        )
    if report.unexpected:
        return wrong(
            f"model.path: nothing reads {_named(report.unexpected)} of the checkpoint; correct "
            "config.json, or export the checkpoint anew"
        )
    return ok()


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _tied_apart(model: ModelUnderTest) -> Result:
    policy = model.policy
    if not policy.config.get_text_config().tie_word_embeddings:
        return not_applicable("the config does not tie the embeddings")
    head = getattr(policy.get_output_embeddings(), "weight", None)
    if head is not policy.get_input_embeddings().weight:
        return wrong(
            "model.path: the config ties the output embeddings to the input's, and the checkpoint "
            "has other ones; set tie_word_embeddings to false in config.json, or take lm_head out"
        )
    return ok()


def _weights_not_finite(model: ModelUnderTest) -> Result:
    names = [name for name, value in model.policy.named_parameters() if not _is_finite(value)]
    if names:
        return wrong(
            f"model.path: {_named(names)} hold NaN or infinity; take an earlier checkpoint, or "
            "merge the adapter again in float32"
        )
    return ok()


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


@torch.no_grad()
def _logits_not_finite(model: ModelUnderTest) -> Result:
    policy = model.policy
    batch = completion_batch([model.example]).to(policy.device)
    with evaluating(policy), reference_kernels(policy):
        logits, _ = trained_logits(policy, batch)
    if not logits.isfinite().all():
        return wrong(
            f"model.dtype={model.options.dtype}: the logits of a short prompt are not finite; "
            "set model.dtype=float32, or choose another checkpoint"
        )
    return ok()


def _fast_path(model: ModelUnderTest) -> Result:
    findings = model.training_findings
    if any(kind is not Difference.ROWS for kind in findings.differences):
        return wrong(f"hardware.kernels={model.hardware.kernels}: {findings}")
    return ok()


def _packing_leak(model: ModelUnderTest) -> Result:
    findings = model.training_findings
    if Difference.ROWS in findings.differences:
        return wrong(f"model.path: {findings}")
    if pads_documents(model.policy):
        return ok("documents of one row read each other, so they are read as padded rows")
    return ok()


def _context_short(model: ModelUnderTest) -> Result:
    limit = context_tokens(model.policy)
    if limit is None:
        return not_applicable("the architecture has no longest text")
    prompts = prompt_tokens(model.tokenizer, [problem.model_prompt for problem in model.problems])
    longest = max(map(len, prompts), default=0)
    for demand in model.demands:
        prompt = longest if demand.after_prompt else 0
        if prompt + demand.tokens > limit:
            before = f" after prompts of up to {prompt:,}" if prompt else ""
            return wrong(
                f"{demand.key}: {demand.tokens:,} tokens{before} are asked for, and the model "
                f"reads {limit:,} (max_position_embeddings); ask for fewer, or choose another model"
            )
    return ok()


@torch.no_grad()
def _dropout(model: ModelUnderTest) -> Result:
    policy = model.policy
    expected = alone_logprobs(policy.eval(), [model.example])
    logprobs = alone_logprobs(policy.train(), [model.example])
    policy.eval()
    if (logprobs - expected).abs().max() <= _DROPPED_OUT:
        return ok()
    config = policy.config.get_text_config().to_dict()
    keys = [key for key, value in config.items() if _drops(key, value)]
    return wrong(
        "model.path: training computes other logprobs than sampling, at random; set "
        f"{', '.join(keys) or 'what is random in training'} to 0 in config.json"
    )


def _drops(key: str, value: object) -> bool:
    return ("drop" in key or "jitter" in key) and isinstance(value, float) and value > 0


LOADED = ("weights-unreadable",)
WEIGHT_CHECKS = (
    Check(
        "rotation-depends-on-length",
        "The longest text of a batch decides how all its positions rotate, as does the cache.",
        "https://github.com/huggingface/transformers/issues/25104",
        _rope,
    ),
    Check(
        "weights-unreadable",
        "Weights are pickled, cut off in a download, or a pointer of Git LFS.",
        "https://github.com/huggingface/transformers/issues/27923",
        _loads,
        ("rotation-depends-on-length",),
    ),
    Check(
        "weights-missing",
        "Weights that the checkpoint lacks are random, and a warning is all that says so.",
        "https://github.com/QwenLM/Qwen3-VL-Embedding/issues/89",
        _missing,
        LOADED,
    ),
    Check(
        "tied-heads-apart",
        "The config ties embeddings that the checkpoint has apart; engines drop one of them.",
        "https://github.com/vllm-project/vllm/pull/51665",
        _tied_apart,
        LOADED,
    ),
    Check(
        "weights-not-finite",
        "A weight is NaN or infinite, and so is every loss.",
        "https://github.com/unslothai/unsloth/issues/3690",
        _weights_not_finite,
        LOADED,
    ),
)
COMPUTES = (*LOADED, *LOADS, "end-token-not-trained", "token-without-row", "weights-not-finite")
FORWARD = (*COMPUTES, "logits-not-finite")
FORWARD_CHECKS = (
    Check(
        "logits-not-finite",
        "Activations overflow in the precision of the run.",
        "https://github.com/huggingface/transformers/issues/39972",
        _logits_not_finite,
        COMPUTES,
    ),
    Check(
        "fast-path-differs",
        "A fast path leaves out what the family does, such as soft caps or scales of logits.",
        "https://github.com/sgl-project/sglang/issues/33915",
        _fast_path,
        FORWARD,
    ),
    Check(
        "packing-leaks",
        "Documents of one row or one batch read each other.",
        "https://github.com/huggingface/trl/issues/1230",
        _packing_leak,
        FORWARD,
    ),
    Check(
        "context-too-short",
        "Rows or completions are longer than what the model can read.",
        "https://github.com/huggingface/open-r1/pull/463",
        _context_short,
        (*LOADED, *LOADS),
    ),
    Check(
        "dropout-in-training",
        "Dropout makes training's logprobs random, so no ratio and no divergence is right.",
        "https://github.com/huggingface/trl/issues/3500",
        _dropout,
        FORWARD,
    ),
)
