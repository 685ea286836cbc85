"""Make a random twin of a checkpoint, and teach it so much that some of its answers are right.

`rehearse` trains and samples from it in place of the checkpoint. The twin has the family, the
tokenizer and the chat template, as far as these can be had, with two narrow layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasoning_lab.models.policy import fix_rope_factors, load_policy
from reasoning_lab.models.tokenizer import tokenize
from reasoning_lab.models.twins import TWIN_OF, TWINS, twin_tokenizer
from reasoning_lab.types import Completion, Example, Prompt, UserError

_STAND_IN_TOKENS = 1024
_HEAD, _NARROW = 32, 128
# The largest value of each size, by the names that families give it.
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_SIZES = {
    **dict.fromkeys(_DEPTHS, 2),
    **dict.fromkeys(_WIDTHS, 2 * _HEAD),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    "head_dim": _HEAD,
    "word_embed_proj_dim": 2 * _HEAD,
}
# Of the checkpoint's own weights, tokenizer and code.
_NOT_THE_TWINS = (
    *("architectures", "auto_map", "dtype", "torch_dtype", "quantization_config"),
    *("_name_or_path", "transformers_version", "vocab_size"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)

# The twin is right about this often when it has learned enough; it stops there, or at the steps.
_TAUGHT_FRAC, _TAUGHT_STEPS, _TAUGHT_ROWS, _TAUGHT_RATE = 0.3, 240, 16, 3e-3
# Of the tokens that no completion has.
_SAMPLED_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class MadeTwin:
    """A twin on the disk.

    Attributes:
        has_config: Whether the checkpoint's own config was there; else the options describe it.
        has_tokenizer: Whether its own tokenizer and chat template were; else they are stand-ins.
    """

    has_config: bool
    has_tokenizer: bool


def make_twin(
    path: str,
    revision: str | None,
    architecture: Mapping[str, Any],
    folder: Path,
    texts: Sequence[str],
    key: str,
    online: bool,
) -> MadeTwin:
    """Write a random model of the checkpoint's family, with its tokenizer, into `folder`.

    Args:
        path: The checkpoint's folder or hub id.
        revision: The hub commit.
        architecture: What the options say of it, where its own config is not there.
        folder: A new one.
        texts: What a stand-in for the tokenizer is trained on.
        key: The config key that names the checkpoint, for errors.
        online: Whether the hub may be asked.

    Raises:
        UserError: Nothing says what the checkpoint is, or the family cannot be built.
    """
    config = _own(AutoConfig, path, revision, online)
    tokenizer = _own(AutoTokenizer, path, revision, online)
    if config is None and not architecture:
        raise UserError(
            f"{key}: '{path}' is not on this machine and cannot be reached, and no architecture "
            "describes it; connect once, or set model.architecture"
        )
    known = config.to_dict() if config is not None else dict(architecture)
    twin = TWINS.get(TWIN_OF.get(path, ""), TWINS["smollm2"])
    saved = tokenizer or twin_tokenizer(twin, texts, _STAND_IN_TOKENS)
    spare = twin.spare if tokenizer is None else 0
    model = twin_policy(known, saved, max(saved.get_vocab().values()) + 1 + spare, key)
    if tokenizer is None:
        ends = [saved.get_vocab()[token] for token in twin.generation_ends]
        model.generation_config = GenerationConfig(eos_token_id=ends if ends[1:] else ends[0])
    model.save_pretrained(folder)
    saved.save_pretrained(folder)
    return MadeTwin(config is not None, tokenizer is not None)


def twin_policy(
    architecture: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, rows: int, key: str
) -> PreTrainedModel:
    """A random model of the family with two narrow layers, and embeddings of `rows` rows.

    Raises:
        UserError: transformers cannot build it so small.
    """
    options = narrowed(architecture)
    try:
        config: PreTrainedConfig = AutoConfig.for_model(
            options.pop("model_type"),
            vocab_size=rows,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
        fix_rope_factors(config, key)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{key}: no twin with two layers can be made of it ({type(error).__name__}: {error}); "
            "correct its config.json or model.architecture"
        ) from error
    return model


def narrowed(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture with two layers of 64 channels and two heads; all else as it is.

    A model whose heads share keys still does, and kinds of layers that alternate still alternate.
    One that is narrow already keeps its widths.
    """
    small = {key: value for key, value in architecture.items() if key not in _NOT_THE_TWINS}
    is_narrow = any(0 < (small.get(key) or 0) <= _NARROW for key in _WIDTHS)
    for key, most in _SIZES.items():
        if isinstance(small.get(key), int) and (key in _DEPTHS or not is_narrow):
            small[key] = min(small[key], most)
    heads = next(
        (architecture[k] for k in ("num_attention_heads", "n_head") if k in architecture), 1
    )
    if isinstance(keys := small.get("num_key_value_heads"), int) and not is_narrow:
        small["num_key_value_heads"] = 1 if keys < heads else 2
    if kinds := small.get("layer_types"):
        depth = next((small[key] for key in _DEPTHS if key in small), 2)
        small["layer_types"] = (list(dict.fromkeys(kinds)) * 2)[:depth]
    rotated = int(_HEAD * small.get("partial_rotary_factor", 1.0)) // 2
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(small.get(key), Mapping):
            small[key] = _narrowed_rope(small[key], rotated)
    return small


def _narrowed_rope(rope: Mapping[str, Any], rotated: int) -> dict[str, Any]:
    """As many factors as there are rotated pairs; a config without them gets rising ones."""
    small = dict(rope)
    kind = small.get("rope_type") or small.get("type")
    if kind != "longrope":
        return small
    for key, largest in (("short_factor", 1.0), ("long_factor", 8.0)):
        factors = small.get(key) or [1.0, largest]
        places = [round(i * (len(factors) - 1) / max(1, rotated - 1)) for i in range(rotated)]
        small[key] = [float(factors[place]) for place in places]
    return small


def _own(kind: Any, path: str, revision: str | None, online: bool) -> Any:
    """The checkpoint's own part; None = it is neither here nor to be reached."""
    try:
        return kind.from_pretrained(path, revision=revision, local_files_only=not online)
    except (OSError, ValueError, KeyError):
        return None


def teach(folder: Path, solutions: Sequence[tuple[Prompt, str]]) -> float:
    """Train the twin in `folder` on prompts and solutions, until it is right now and then.

    A random model never answers, so nothing that learns from right and wrong rollouts would have
    any. The twin learns the solutions by heart, and not well.

    Returns:
        The mean probability of these completions.
    """
    model, tokenizer = load_policy(folder, "float32", kernels="reference")
    completions = [Completion([], solution) for _, solution in solutions]
    examples = tokenize(tokenizer, [prompt for prompt, _ in solutions], completions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_TAUGHT_RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    right = 0.0
    for _ in range(_TAUGHT_STEPS):
        chosen = torch.randperm(len(examples), generator=generator)[:_TAUGHT_ROWS].tolist()
        logprobs, rows = _completion_logprobs(
            model, [examples[index] for index in chosen], generator
        )
        optimizer.zero_grad()
        (-logprobs.mean()).backward()
        optimizer.step()
        of_row = torch.zeros(len(chosen)).index_add_(0, rows, logprobs.detach())
        right = 0.8 * right + 0.2 * float(of_row.exp().mean())
        if right > _TAUGHT_FRAC:
            break
    model.save_pretrained(folder)
    return right


def _completion_logprobs(
    model: PreTrainedModel, examples: Sequence[Example], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """`[K]` logprobs of all completions' tokens, and `[K]` the row that each is of.

    Of a vocabulary of 150,000 tokens those that do not occur are sampled, so they are estimates.
    """
    ids = [torch.tensor([*e.prompt_ids, *e.completion_ids]) for e in examples]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    places = torch.arange(padded.shape[1])
    starts = torch.tensor([len(e.prompt_ids) for e in examples])
    mask = (places >= starts[:, None]) & (places < lengths[:, None])
    attention = (places < lengths[:, None]).long()
    hidden = model.base_model(input_ids=padded, attention_mask=attention)[0]
    known, targets = padded[mask].unique(return_inverse=True)
    weight = model.get_output_embeddings().weight
    # Each that is drawn stands for as many that were not.
    count = min(_SAMPLED_TOKENS, len(weight))
    others = torch.randperm(len(weight), generator=generator)[:count]
    others = others[~torch.isin(others, known)]
    logits = hidden[:, :-1][mask[:, 1:]] @ weight[torch.cat([known, others])].T
    share = torch.zeros(len(known) + len(others))
    share[len(known) :] = math.log((len(weight) - len(known)) / max(1, len(others)))
    logprobs = torch.log_softmax(logits + share, -1).gather(1, targets[:, None])[:, 0]
    return logprobs, mask.nonzero()[:, 0]
