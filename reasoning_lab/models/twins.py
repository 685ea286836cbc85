"""Random twins of checkpoints: the same family, a tenth of a million parameters.

A checkpoint that is not on this machine is stood in for by what is known of it: its architecture,
the markup of its chat template, its control tokens and the rows of its vocabulary without a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
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
R1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|Assistant|>' + message['content'].split('</think>')[-1] + eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Twin:
    """What is particular to one checkpoint.

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
        template=CHATML,
        pad="<|endoftext|>",
        spare=40,
        generation_ends=["<|endoftext|>"],
    ),
    "qwen3": Twin(
        {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
        _QWEN,
        end="<|im_end|>",
        turn_end="<|im_end|>",
        template=CHATML,
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
        template=CHATML,
        pad="<|im_end|>",
        start="<|im_start|>",
        generation_ends=["<|im_end|>"],
    ),
    "r1_distill_qwen": Twin(
        {"model_type": "qwen2", "rope_theta": 1e4, "tie_word_embeddings": False},
        ["<|end_of_sentence|>", "<|User|>", "<|Assistant|>", "<|begin_of_sentence|>"],
        end="<|end_of_sentence|>",
        turn_end="<|end_of_sentence|>",
        template=R1,
        pad="<|end_of_sentence|>",
        start="<|begin_of_sentence|>",
        starts=True,
        marks=True,
        spare=40,
        generation_ends=["<|end_of_sentence|>"],
    ),
}


# What is known of the checkpoints that conf/model names, where these are not on this machine.
TWIN_OF = {
    "microsoft/Phi-4-mini-instruct": "phi4_mini",
    "Qwen/Qwen2.5-0.5B": "qwen2_5",
    "Qwen/Qwen2.5-1.5B": "qwen2_5",
    "Qwen/Qwen3-0.6B": "qwen3",
    "meta-llama/Llama-3.2-1B": "llama3_2",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": "r1_distill_qwen",
}


def twin_tokenizer(
    twin: Twin, texts: Sequence[str], vocab_size: int = 285
) -> PreTrainedTokenizerFast:
    """Byte-level BPE of so many tokens, behind which come the control tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False),
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
