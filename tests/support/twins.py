"""Checkpoints as a hub has them, tiny and random: one of each kind that conf/model names.

Each has what is particular to its family: the architecture's features, what its tokenizer knows and
lacks, its chat template, rows of its vocabulary without a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_PHI = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|Assistant|>' + message['content'].split('</think>')[-1] + eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)


# As Qwen3's: a user's turns as ChatML, an assistant's thought taken out of its text, trimmed, and
# shown in the last turn alone, empty where there is none.
_HYBRID = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1] "
    "if '</think>' in content else '' %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}"
    "{% set content = '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content %}"
    "{% endif %}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_HEADERS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# No system's turn, other names of the roles, contents trimmed.
_GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Nothing is written for the assistant's turn to come, and a space stands before its end.
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
)
_SYSTEM = "<|im_start|>system\nThink between <think> and </think> first.<|im_end|>\n"


@dataclass(frozen=True)
class Twin:
    """Of one option.

    Attributes:
        architecture: Arguments of the transformers config, without the sizes.
        special: The tokenizer's control tokens.
        end: Its end token.
        turn_end: What ends an assistant's turn.
        template: None = it has none.
        pad, start: None = it has none.
        starts: Whether it begins every text with `start`.
        marks: Whether it knows the thinking marks.
        plain: Markup among its added tokens that is not special.
        spare: Rows of the embeddings behind the last token.
        generation_ends: Where the checkpoint's own generation config stops.
    """

    architecture: dict[str, Any]
    special: Sequence[str]
    end: str
    turn_end: str
    template: str | None = None
    pad: str | None = None
    start: str | None = None
    starts: bool = False
    marks: bool = False
    plain: Sequence[str] = ()
    spare: int = 0
    generation_ends: Sequence[str] = field(default_factory=list)


_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0] * 6,
    "long_factor": [1.0, 1.5, 2.0, 4.0, 6.0, 8.0],
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
TWINS = {
    "phi4_mini": Twin(
        {
            "model_type": "phi3",
            "partial_rotary_factor": 0.75,
            "rope_scaling": _LONGROPE,
            "original_max_position_embeddings": 24,
            "sliding_window": 512,
            "tie_word_embeddings": True,
        },
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        end="<|endoftext|>",
        turn_end="<|end|>",
        template=_PHI,
        pad="<|endoftext|>",
        start="<|endoftext|>",
        spare=35,
        generation_ends=["<|end|>", "<|endoftext|>"],
    ),
    "qwen2_5": Twin(
        {"model_type": "qwen2", "rope_theta": 1e6, "tie_word_embeddings": True},
        _QWEN,
        end="<|endoftext|>",
        turn_end="<|im_end|>",
        template=_CHATML,
        pad="<|endoftext|>",
        spare=40,
        generation_ends=["<|endoftext|>"],
    ),
    "qwen3": Twin(
        {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
        _QWEN,
        end="<|im_end|>",
        turn_end="<|im_end|>",
        template=_CHATML,
        pad="<|endoftext|>",
        marks=True,
        spare=40,
        generation_ends=["<|im_end|>", "<|endoftext|>"],
    ),
    "llama3_2": Twin(
        {"model_type": "llama", "rope_scaling": _LLAMA3, "tie_word_embeddings": True},
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        end="<|end_of_text|>",
        turn_end="<|end_of_text|>",
        start="<|begin_of_text|>",
        starts=True,
        generation_ends=["<|end_of_text|>"],
    ),
    "smollm2": Twin(
        {"model_type": "llama", "rope_theta": 1e5, "tie_word_embeddings": True},
        _QWEN,
        end="<|im_end|>",
        turn_end="<|im_end|>",
        template=_CHATML,
        pad="<|im_end|>",
        start="<|im_start|>",
        generation_ends=["<|im_end|>"],
    ),
    "r1_distill_qwen": Twin(
        {"model_type": "qwen2", "rope_theta": 1e4, "tie_word_embeddings": False},
        ["<|end_of_sentence|>", "<|User|>", "<|Assistant|>", "<|begin_of_sentence|>"],
        end="<|end_of_sentence|>",
        turn_end="<|end_of_sentence|>",
        template=_R1,
        pad="<|end_of_sentence|>",
        start="<|begin_of_sentence|>",
        starts=True,
        marks=True,
        spare=40,
        generation_ends=["<|end_of_sentence|>"],
    ),
}
# Chat templates of the same families and of others; only their tokenizers are made.
FAMILIES = {
    **TWINS,
    "qwen3_hybrid": replace(
        TWINS["qwen3"], template=_HYBRID, plain=["<tool_call>", "</tool_call>"]
    ),
    "llama3_2_instruct": Twin(
        {},
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
        plain=["<|eot_id|>"],
        end="<|end_of_text|>",
        turn_end="<|eot_id|>",
        template=_HEADERS,
        start="<|begin_of_text|>",
        starts=True,
    ),
    # R1's marks of the roles are no special tokens.
    "opens_without_break": replace(
        TWINS["r1_distill_qwen"],
        template=_R1.replace("<think>\n", "<think>"),
        special=["<|end_of_sentence|>", "<|begin_of_sentence|>"],
        plain=["<|User|>", "<|Assistant|>"],
    ),
    "opens_with_more": replace(
        TWINS["r1_distill_qwen"], template=_R1.replace("<think>\n", "<think>\nOkay,")
    ),
    "system_names_the_marks": replace(TWINS["qwen3"], template=_SYSTEM + _CHATML),
    "gemma": Twin(
        {},
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        end="<eos>",
        turn_end="<end_of_turn>",
        template=_GEMMA,
        start="<bos>",
        starts=True,
    ),
    "mistral": Twin(
        {},
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        end="</s>",
        turn_end="</s>",
        template=_MISTRAL,
        start="<s>",
        starts=True,
    ),
}


def twin_tokenizer(twin: Twin, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 285 tokens, behind which come the control tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=285, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(list(twin.special))
    backend.add_tokens(list(twin.plain))
    if twin.marks:
        backend.add_tokens(["<think>", "</think>"])
    if twin.starts:
        assert twin.start is not None
        backend.post_processor = processors.TemplateProcessing(
            single=f"{twin.start} $A",
            special_tokens=[(twin.start, backend.token_to_id(twin.start))],
        )
    fast_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=twin.end, pad_token=twin.pad, bos_token=twin.start
    )
    fast_tokenizer.chat_template = twin.template
    return fast_tokenizer


def twin_model(twin: Twin, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
    """One layer of 32 channels, or of heads of 16."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        **{
            "vocab_size": max(tokenizer.get_vocab().values()) + 1 + twin.spare,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **twin.architecture,
        }
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    ends = [tokenizer.get_vocab()[token] for token in twin.generation_ends]
    model.generation_config = GenerationConfig(eos_token_id=ends if ends[1:] else ends[0])
    return model


def save_twin(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """As it would lie on the hub."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
