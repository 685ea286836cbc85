"""Twins of the checkpoints that conf names, as a rehearsal makes them without a hub."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.twin_building import make_twin, narrowed, teach
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.types import UserError
from tests.support.composition import models
from tests.support.families import PLAIN, SCALED, architecture
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

OPTIONS = sorted(name for name in models() if name not in ("tiny", "checkpoint"))
TEXTS = ["What is 3 + 4?", "Ada has 2 apples."] * 4


def option(name: str) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(models()[name])
    return dict(content)


def make(name: str, folder: Path) -> None:
    of = option(name)
    made = make_twin(
        of["path"], of["revision"], of["architecture"], folder, TEXTS, "model.path", False
    )
    assert not made.has_config
    assert not made.has_tokenizer


@pytest.mark.parametrize("name", OPTIONS)
def test_each_shipped_model_has_a_twin_that_loads_and_computes(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    model, tokenizer = load_policy(tmp_path, "float32")
    config, real = model.config, option(name)["architecture"]
    assert config.model_type == real["model_type"]
    assert config.num_hidden_layers == 2
    shares = real["num_key_value_heads"] < real["num_attention_heads"]
    assert (config.num_key_value_heads < config.num_attention_heads) == shares
    assert config.tie_word_embeddings == real["tie_word_embeddings"]
    assert tokenizer.eos_token_id < config.vocab_size
    logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("family", [*PLAIN, *SCALED])
def test_a_narrow_model_only_loses_layers(family: str) -> None:
    wide = {**architecture(family), "num_hidden_layers": 6}
    assert narrowed(wide) == {**wide, "num_hidden_layers": 2} or "n_layer" in wide


def test_kinds_of_layers_that_alternate_still_do() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    small = narrowed({"hidden_size": 640, "num_hidden_layers": 6, "layer_types": kinds})
    assert small["layer_types"] == ["sliding_attention", "full_attention"]


def test_a_checkpoint_on_this_machine_gives_config_and_tokenizer(tmp_path: Path) -> None:
    tokenizer = twin_tokenizer(TWINS["qwen3"], TEXTS)
    save_twin(twin_model(TWINS["qwen3"], tokenizer), tokenizer, tmp_path / "real")
    made = make_twin(
        str(tmp_path / "real"), None, {}, tmp_path / "twin", TEXTS, "model.path", False
    )
    assert made.has_config
    assert made.has_tokenizer
    _, of_twin = load_policy(tmp_path / "twin", "float32")
    _, of_real = load_policy(tmp_path / "real", "float32")
    assert of_twin.chat_template == of_real.chat_template
    assert of_twin.get_vocab() == of_real.get_vocab()


def test_a_checkpoint_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.path: 'some/body' is not on this machine"):
        make_twin("some/body", None, {}, tmp_path, TEXTS, "model.path", False)


def test_an_architecture_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.path: no twin with two layers"):
        make_twin(
            "some/body", None, {"model_type": "nonsense"}, tmp_path, TEXTS, "model.path", False
        )


def test_a_taught_twin_is_right_now_and_then_and_ends(tmp_path: Path) -> None:
    make("r1_distill_qwen_1_5b", tmp_path)
    answers = [(f"Problem {number}: count.", str(2 + number % 4)) for number in range(16)]
    text = "<think>\nSo it is {0}.\n</think>\n\\boxed{{{0}}}"
    solutions = [(prompt, text.format(gold)) for prompt, gold in answers]
    assert 0.1 < teach(tmp_path, solutions) < 0.9
    engine = HFEngine(*load_policy(tmp_path, "float32"), 64)
    prompts = [prompt for prompt, _ in answers for _ in range(4)]
    completions = engine.generate(prompts, Sampling(1.0, 1.0, 64), list(range(64)))
    golds = [gold for _, gold in answers for _ in range(4)]
    right = sum(f"boxed{{{g}}}" in c.text for g, c in zip(golds, completions, strict=True))
    # By chance a quarter of 64 is right once the form is known.
    assert 6 < right < 64
    assert sum(completion.truncated for completion in completions) < 16
