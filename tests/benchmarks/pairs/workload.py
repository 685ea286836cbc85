"""What both sides of a pair are given: a model with random weights, documents, pairs, prompts.

Written once to a folder as the lab's own artifacts. A word is a token, so texts have exactly the
lengths that are drawn for them.
"""

import json
import math
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.models.policy import save_policy
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN
from reasoning_lab.models.tokenizer import END, PAD
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
# The lab's tiny template, with spaces at which the words end.
CHAT = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKS = 4  # `<|user|>`, `<|end|>`, `<|assistant|>`, and the end of the completion.
# One token in so many ends a completion, so that lengths are mixed though the weights are random.
ENDS_ONE_IN = 60
# In RL whose completions end: on average half as long as the longest, as in the tiny recipe.
RL_ENDS_ONE_IN = 45
ENDING_POLICY = "policy-ending"
# One word of a teacher's in so many is an answer.
ANSWERS_ONE_IN = 16


@dataclass(frozen=True)
class Size:
    """A model and how much of each kind of work a round has.

    Attributes:
        vocab_size: Tokens.
        architecture: Arguments of the transformers config.
        rounds: How often each side does it, in turn.
        row_tokens: Of a packed row.
        batch_rows: Rows of a packed step.
        batch_size: Examples, or pairs, of a step.
        steps: Steps a round, of each kind of training.
        prompts: Of generation, and problems of distillation.
        max_new_tokens: Most that a completion has.
        answers: Verified in a round.
        rl_prompts: Of a step of RL.
        group_size: Completions of each.
    """

    vocab_size: int
    architecture: dict[str, Any]
    rounds: int
    row_tokens: int = 256
    batch_rows: int = 4
    batch_size: int = 8
    steps: dict[str, int] = field(default_factory=dict)
    prompts: int = 128
    max_new_tokens: int = 128
    answers: int = 2000
    rl_prompts: int = 8
    group_size: int = 8


def _tiny() -> dict[str, Any]:
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "tiny.yaml"))
    return dict(config["architecture"])


LLAMA_30M = {
    "model_type": "llama",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
SIZES = {
    "tiny": Size(
        512,
        _tiny(),
        5,
        batch_size=16,
        steps={"midtrain": 48, "sft": 48, "dpo": 16, "grpo": 20},
        prompts=256,
    ),
    "30m": Size(
        49_152, LLAMA_30M, 3, steps={"midtrain": 4, "sft": 8, "dpo": 6, "grpo": 1}, prompts=64
    ),
    "smoke": Size(
        512,
        _tiny(),
        1,
        row_tokens=64,
        batch_rows=2,
        batch_size=4,
        steps={"midtrain": 2, "sft": 2, "dpo": 2, "grpo": 2},
        rl_prompts=2,
        group_size=2,
        prompts=8,
        max_new_tokens=16,
        answers=20,
    ),
}


def ends(size: Size) -> list[int]:
    """Tokens at which a completion ends, by chance: the weights are random."""
    return [SPECIAL.index(END), *range(100, size.vocab_size, ENDS_ONE_IN)]


def answering(number: int) -> str:
    """A teacher's word: as others, or 1 or 2 in a box, as a fraction that has to be computed."""
    which, rest = divmod(number, ANSWERS_ONE_IN)
    if rest:
        return f"w{number}"
    factor, value = which // 2 + 2, which % 2 + 1
    return f"\\boxed{{\\frac{{{value * factor}}}{{{factor}}}}}"


def word_tokenizer(
    vocab_size: int, word: Callable[[int], str] = "w{}".format
) -> PreTrainedTokenizerFast:
    """Of `vocab_size` tokens: the lab's marks and words, by default `w0`, `w1`, …"""
    named = [*SPECIAL, THINK_OPEN, THINK_CLOSE]
    words = [*named, *(word(number) for number in range(vocab_size - len(named)))]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([THINK_OPEN, THINK_CLOSE])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = CHAT
    return fast


def write_workload(size: Size, folder: Path) -> None:
    """Write `policy`, and for each kind of training `KIND` and, of one step, `KIND-check`.

    Of distillation it is `teacher`, the policy in words that hold answers, and `problems.jsonl`; of
    RL whose completions end, `policy-ending`.
    """
    tokenizer = word_tokenizer(size.vocab_size)
    options = dict(size.architecture)
    config = AutoConfig.for_model(
        options.pop("model_type"),
        vocab_size=size.vocab_size,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    save_policy(model, tokenizer, folder / "policy")
    words = _Words(size.vocab_size - len(SPECIAL) - 2)
    for kind, steps in size.steps.items():
        for suffix, count in (("", steps), ("-check", 1)):
            work_folder = folder / f"{kind}{suffix}"
            work_folder.mkdir()
            _WRITE[kind](words, size, count, work_folder)
    prompts = [words.text(words.rng.randint(8, 40)) for _ in range(size.prompts)]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    model.generation_config.eos_token_id = ends(size)
    save_policy(model, word_tokenizer(size.vocab_size, answering), folder / "teacher")
    _write_rows(folder, [(words.text(words.rng.randint(8, 40)), at % 2 + 1) for at in range(1024)])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    end_often(model, tokenizer.eos_token_id, RL_ENDS_ONE_IN)
    save_policy(model, tokenizer, folder / ENDING_POLICY)
    (folder / "size.json").write_text(json.dumps(asdict(size)))


@torch.no_grad()
def end_often(model: PreTrainedModel, end: int, one_in: int) -> None:
    """Make `end` about one token in `one_in` of those that the model draws.

    TRL's trainer knows one end, where `ends` has many. A number is made the same in all (tied)
    embeddings, so large that it is the same in every state too, and a little larger in the end's.
    """
    table: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    table[:, 0] = 16.0
    tokens = torch.randint(len(table), (8, 64), generator=torch.Generator().manual_seed(0))
    states = model.base_model(input_ids=tokens)[0]
    share = (states @ table.t()).softmax(-1)[..., end].mean()
    logit_gap = math.log(1 / (one_in - 1)) - share.logit()
    table[end, 0] += logit_gap / states[..., 0].mean()


def chance(completion: str) -> float:
    """A reward between 0 and 1 that differs within a group, as a model's right and wrong do."""
    return zlib.crc32(completion.encode()) % 1000 / 1000


class _Words:
    def __init__(self, count: int) -> None:
        self.rng = random.Random(0)
        self._count = count

    def text(self, tokens: int) -> str:
        return " ".join(f"w{self.rng.randrange(self._count)}" for _ in range(tokens))

    def rollout(self, prompt: str, tokens: int, verdict: Verdict = Verdict.CORRECT) -> Rollout:
        problem = Problem(prompt, gold="0", checker="number", family="bench", level=1)
        return Rollout(problem, Completion([], self.text(tokens)), "0", verdict, "bench")

    def length(self, least: int, most: int) -> int:
        """Drawn so that each doubling is as likely: many short ones, few long."""
        exponent = self.rng.random()
        return round(least * math.pow(most / least, exponent))


def _packed(words: _Words, size: Size, steps: int, folder: Path) -> None:
    """Documents of a half, a quarter and an eighth of a row, which fill rows exactly."""
    parts = [part for share in (2, 4, 8) for part in [size.row_tokens // share] * share]
    rows = steps * size.batch_rows
    rollouts = [
        words.rollout(words.text(part // 4), part - part // 4 - MARKS)
        for row in range(rows)
        for part in _row(parts, size.row_tokens, row)
    ]
    words.rng.shuffle(rollouts)
    write_rollouts(folder / "accepted.parquet", rollouts)
    write_rollouts(folder / "validation.parquet", rollouts[:1])


def _row(parts: Sequence[int], row_tokens: int, number: int) -> Iterator[int]:
    """Documents of one length, which together are a row."""
    length = sorted(set(parts))[number % len(set(parts))]
    yield from [length] * (row_tokens // length)


def _varied(words: _Words, size: Size, steps: int, folder: Path) -> None:
    rollouts = [
        words.rollout(words.text(words.length(8, 32)), words.length(16, size.row_tokens - 40))
        for _ in range(steps * size.batch_size)
    ]
    write_rollouts(folder / "accepted.parquet", rollouts)


def _preferences(words: _Words, size: Size, steps: int, folder: Path) -> None:
    prompts = [words.text(words.length(8, 32)) for _ in range(steps * size.batch_size)]
    for name, verdict in (("chosen", Verdict.CORRECT), ("rejected", Verdict.WRONG)):
        rollouts = [
            words.rollout(prompt, words.length(16, size.row_tokens - 40), verdict)
            for prompt in prompts
        ]
        write_rollouts(folder / f"{name}.parquet", rollouts)


def _problems(words: _Words, size: Size, steps: int, folder: Path) -> None:
    _write_rows(folder, [(words.text(16), 0) for _ in range(steps * size.rl_prompts)])


def _write_rows(folder: Path, rows: Sequence[tuple[str, int]]) -> None:
    """Prompts and golds."""
    lines = [json.dumps({"prompt": prompt, "gold": str(gold)}) + "\n" for prompt, gold in rows]
    (folder / "problems.jsonl").write_text("".join(lines))


_WRITE = {"grpo": _problems, "midtrain": _packed, "sft": _varied, "dpo": _preferences}
