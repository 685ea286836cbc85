"""Checkpoints as a hub has them, tiny and random: one of each kind that conf/model names.

Each has what is particular to its family: the architecture's features, what its tokenizer knows and
lacks, its chat template, rows of its vocabulary without a token.
"""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from reasoning_lab.models.twins import CHATML, R1, TWINS, Twin, twin_tokenizer

__all__ = ["FAMILIES", "TWINS", "Twin", "save_twin", "twin_model", "twin_tokenizer"]

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
        template=R1.replace("<think>\n", "<think>"),
        special=["<|end_of_sentence|>", "<|begin_of_sentence|>"],
        plain=["<|User|>", "<|Assistant|>"],
    ),
    "opens_with_more": replace(
        TWINS["r1_distill_qwen"], template=R1.replace("<think>\n", "<think>\nOkay,")
    ),
    "system_names_the_marks": replace(TWINS["qwen3"], template=_SYSTEM + CHATML),
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
