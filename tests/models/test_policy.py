"""Checkpoints of every kind that conf/model names: their tokens, ends and positions."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.config.folder import CONF
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.binding import reference_kernels
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.chat import add_missing_tokens, stop_token_ids, unused_ids_mask
from reasoning_lab.models.footprint import parameter_count
from reasoning_lab.models.markup import plain_tokens
from reasoning_lab.models.policy import build_policy, load_policy, save_policy
from reasoning_lab.models.tokenizer import prompt_tokens, tokenize_rollouts
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.types import Completion, Example, Problem, Rollout, UserError, Verdict
from tests.conftest import Compose
from tests.support.composition import BARE
from tests.support.tensors import embedding, projection
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

TEXTS = ["the coin shows heads or tails", "so it is <think> and </think>", "a pad"]


# As the models' own pages and files count them.
PARAMETERS = {
    "phi4_mini": 3_836_021_760,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen3_0_6b": 596_049_920,
    "llama3_2_1b": 1_235_814_400,
    "smollm2_135m": 134_515_008,
    "r1_distill_qwen_1_5b": 1_777_088_000,
}
# Their widths.
FROM_NOTHING = {"tiny": 128, "tiny_0_2m": 64, "tiny_3m": 256}


PROMPTS = {
    "phi4_mini": "<|user|>coin 3<|end|><|assistant|>",
    "qwen2_5": "<|im_start|>user\ncoin 3<|im_end|>\n<|im_start|>assistant\n",
    "llama3_2": "<|begin_of_text|>User:\ncoin 3\n\nAssistant:\n",
    "r1_distill_qwen": "<|begin_of_sentence|><|User|>coin 3<|Assistant|><think>\n",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each twin."""
    root = tmp_path_factory.mktemp("hub")
    for name, twin in TWINS.items():
        tokenizer = twin_tokenizer(twin, TEXTS)
        save_twin(twin_model(twin, tokenizer), tokenizer, root / name)
    return root


def rows(model: PreTrainedModel) -> int:
    return embedding(model).shape[0]


@pytest.mark.parametrize("option", PARAMETERS)
def test_option_is_pinned_and_has_the_published_size(option: str, composed: Compose) -> None:
    model = composed(BARE, f"model={option}").root.model
    assert model.path is not None
    assert model.revision is not None
    assert len(bytes.fromhex(model.revision)) == 20
    assert parameter_count(model.architecture, model.vocab_size) == PARAMETERS[option]


def test_every_option_with_a_checkpoint_is_held_to_its_size() -> None:
    assert {path.stem for path in (CONF / "model").glob("*.yaml")} == {
        *PARAMETERS,
        *FROM_NOTHING,
        "checkpoint",
    }


@pytest.mark.parametrize("option", FROM_NOTHING)
def test_a_model_from_nothing_has_the_size_of_its_layers(option: str, composed: Compose) -> None:
    """Four layers of attention, of a feed-forward of 2.75 widths, and of normalisation."""
    model = composed(f"model={option}").root.model
    width = FROM_NOTHING[option]
    layer = 3 * width**2 + 3 * width * (width * 11 // 4) + 2 * width + 2 * 32
    expected = 512 * width + 4 * layer + width
    assert parameter_count(model.architecture, model.vocab_size) == expected


@pytest.mark.parametrize("name", TWINS)
def test_a_turn_ends_where_generation_stops(name: str, hub: Path) -> None:
    twin = TWINS[name]
    model, tokenizer = load_policy(hub / name, "float32")
    assert tokenizer.eos_token == twin.turn_end
    ends = tokenizer.convert_ids_to_tokens(stop_token_ids(model, tokenizer))
    assert ends == list(dict.fromkeys([twin.turn_end, *twin.generation_ends]))


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt_is_the_chat_template_s(name: str, hub: Path) -> None:
    _, tokenizer = load_policy(hub / name, "float32")
    (ids,) = prompt_tokens(tokenizer, ["coin 3"])
    assert tokenizer.decode(ids) == PROMPTS[name]


@pytest.mark.parametrize("name", TWINS)
def test_missing_tokens_are_added_and_rows_never_taken(
    name: str, hub: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_policy(hub / name, "float32")
    before = [table.detach().clone() for table in (embedding(model), projection(model))]
    known, had = tokenizer.get_vocab(), rows(model)
    marks = ["<think>", "</think>"]
    pieces = plain_tokens(tokenizer, marks)
    add_missing_tokens(model, tokenizer)
    assert plain_tokens(tokenizer, marks) == [[tokenizer.get_vocab()[mark]] for mark in marks]
    assert tokenizer.decode(plain_tokens(tokenizer, ["<think>x"])[0], skip_special_tokens=True) == (
        "<think>x"
    )
    assert tokenizer.pad_token_id is not None
    if TWINS[name].spare:
        assert rows(model) == had
    else:
        # 288 = 2^5 * 9 rows become the next multiple of 2^5 with room for two or three more.
        assert (had, rows(model)) == (288, 320)
    tables = (embedding(model), projection(model))
    for old, table in zip(before, tables, strict=True):
        old_ids = [number for number in known.values() if number < had]
        assert torch.equal(table[old_ids], old[old_ids])
        for mark, of in zip(marks, pieces, strict=True):
            mean = old[of].mean(0)
            torch.testing.assert_close(table[tokenizer.get_vocab()[mark]], mean)
    if had < rows(model):
        torch.testing.assert_close(tables[0][-1], before[0].mean(0))
    save_policy(model, tokenizer, tmp_path)
    again, same = load_policy(tmp_path, "float32")
    tied = embedding(again) is projection(again)
    assert tied is TWINS[name].architecture["tie_word_embeddings"]
    assert same.get_vocab() == tokenizer.get_vocab()
    add_missing_tokens(again, same)
    for key, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


@pytest.mark.parametrize("sampling", [(0.0, 1.0), (1.0, 1.0), (0.8, 0.9)])
def test_an_id_without_a_token_is_never_drawn(sampling: tuple[float, float], hub: Path) -> None:
    model, tokenizer = load_policy(hub / "r1_distill_qwen", "float32")
    hidden = unused_ids_mask(model, tokenizer)
    assert hidden is not None
    assert int(hidden.sum()) == rows(model) - len(tokenizer)
    head = model.get_output_embeddings()
    prompts = prompt_tokens(tokenizer, [f"coin {n}" for n in range(8)])
    with torch.no_grad():
        # Each hidden row is as likely as the likeliest token, many times over.
        head.weight[hidden] = head.weight[~hidden][7]
        head.weight[7] = head.weight[~hidden][7]
    engine = HFEngine(model, tokenizer, 8)
    completions = engine.complete(prompts, Sampling(*sampling, 12), range(8))
    drawn = {token for completion in completions for token in completion.token_ids}
    assert drawn <= set(tokenizer.get_vocab().values())
    examples = [Example(p, c.token_ids) for p, c in zip(prompts, completions, strict=True)]
    with torch.no_grad():
        expected = token_logprobs(model, completion_batch(examples), sampling[0] or 1.0)
    logprobs = [value for completion in completions for value in completion.logprobs]
    assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_generation_stops_at_each_of_the_ends(hub: Path) -> None:
    """Phi-4-mini's: at the end of a turn, and of a document."""
    model, tokenizer = load_policy(hub / "phi4_mini", "float32")
    ends = stop_token_ids(model, tokenizer)
    assert len(ends) == 2
    prompts = prompt_tokens(tokenizer, [f"coin {n}" for n in range(200)])
    completions = HFEngine(model, tokenizer, 200).complete(
        prompts, Sampling(1.0, 1.0, 60), range(200)
    )
    last = {completion.token_ids[-1] for completion in completions if not completion.truncated}
    assert last == set(ends)
    assert not any(token in ends for one in completions for token in one.token_ids[:-1])


def documents(vocabulary: int) -> list[Example]:
    """One crosses LongRoPE's 24 positions, as generation does with the others."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(6, 5), (9, 30), (3, 6)]
    return [
        Example(*(torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in pair))
        for pair in sizes
    ]


def check_positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    read = documents(200)
    with torch.no_grad():
        alone = torch.cat([token_logprobs(model, completion_batch([one])) for one in read])
        joined = token_logprobs(model, completion_batch(read))
        with reference_kernels(model):
            padded = token_logprobs(model, completion_batch(read))
    torch.testing.assert_close(joined, alone, atol=2e-5, rtol=0)
    torch.testing.assert_close(padded, alone, atol=2e-5, rtol=0)
    prompts = [one.prompt_ids for one in read]
    completions = HFEngine(model, tokenizer, 8).complete(prompts, Sampling(1.0, 1.0, 40), range(3))
    assert max(len(one.token_ids) for one in completions) == 40
    for prompt, completion in zip(prompts, completions, strict=True):
        example = Example(prompt, completion.token_ids)
        with torch.no_grad():
            expected = token_logprobs(model, completion_batch([example]))
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=5e-5)


@pytest.mark.parametrize("name", TWINS)
def test_logprobs_are_the_same_packed_padded_alone_and_generated(name: str, hub: Path) -> None:
    check_positions(*load_policy(hub / name, "float32"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("phi3", {}),
        ("mistral", {}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 1, "head_dim": 32}),
    ],
)
def test_so_they_are_with_a_sliding_window(
    model_type: str, options: dict[str, object], attention: str, hub: Path
) -> None:
    _, tokenizer = load_policy(hub / "llama3_2", "float32")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        sliding_window=5,
        initializer_range=0.2,
        **options,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    check_positions(model, tokenizer)


def test_rotation_that_follows_what_was_read_is_refused(hub: Path, tmp_path: Path) -> None:
    model, tokenizer = load_policy(hub / "llama3_2", "float32")
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    save_policy(model, tokenizer, tmp_path)
    with pytest.raises(UserError, match=r"model\.path: its rotary embedding \('dynamic'\)"):
        load_policy(tmp_path, "float32")


@pytest.mark.parametrize("name", ["r1_distill_qwen", "qwen3"])
def test_a_thought_is_opened_once(name: str, hub: Path) -> None:
    _, tokenizer = load_policy(hub / name, "float32")
    problem = Problem("coin 3", "0", "math", "coins")
    completion = Completion([], "<think>\nheads\n</think>\n\\boxed{0}")
    rollout = Rollout(problem, completion, "0", Verdict.CORRECT, "teacher")
    (example,) = tokenize_rollouts(tokenizer, [rollout])
    text = tokenizer.decode([*example.prompt_ids, *example.completion_ids])
    assert text.count("<think>\nheads") == text.count("<think>") == 1
    assert example.completion_ids[-1] == tokenizer.eos_token_id


def test_a_template_that_tells_the_date_tells_a_fixed_one(hub: Path) -> None:
    _, tokenizer = load_policy(hub / "llama3_2", "float32")
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% endif %}{{ date_string }}"
    )
    assert tokenizer.decode(prompt_tokens(tokenizer, ["coin"])[0]) == "26 Jul 2024"


def test_no_tokenizer_is_trained_that_would_be_read_as_another(hub: Path) -> None:
    _, tokenizer = load_policy(hub / "llama3_2", "float32")
    with pytest.raises(UserError, match=r"model_type=qwen2: .*choose qwen3"):
        build_policy({"model_type": "qwen2"}, tokenizer, "float32", 0)
