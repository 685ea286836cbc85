"""Generation in this process: sampling, batching, and logprobs against the loss."""

import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.fused_decoder import can_decode_fused
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling import hf
from reasoning_lab.sampling.engine import NOTHING_YET, Sampling
from reasoning_lab.sampling.hf import HFEngine, sample
from reasoning_lab.types import Completion, Example
from tests.support.tiny import tiny_model, tiny_phi3

PAD, END, VOCAB = 0, 1, 14
LINEAR_ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
# Their completions end, and are cut off, at different lengths.
SEEDS = {"qwen3": 1, "qwen2": 3, "llama": 3}


@pytest.fixture(scope="module", params=["phi3", "qwen3", "qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Phi-3 decodes with its own forward pass; the others have a fused decoder."""
    if request.param == "phi3":
        policy: PreTrainedModel = tiny_phi3(VOCAB, PAD, END, seed=3, initializer_range=0.1)
        bind_kernels(policy)
        return policy
    options = {"rope_parameters": LINEAR_ROPE} if request.param == "llama" else {}
    policy = tiny_model(request.param, VOCAB, PAD, END, seed=SEEDS[request.param], **options)
    bind_kernels(policy)
    return policy


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": PAD, "<end>": END, **{f"w{i}": i for i in range(2, VOCAB)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<pad>")


@pytest.mark.parametrize(
    ("model_type", "options", "fused"),
    [
        ("qwen3", {}, True),
        ("qwen2", {}, True),
        ("llama", {}, True),
        ("llama", {"rope_parameters": LINEAR_ROPE}, True),
        ("llama", {"attention_bias": True}, False),
        ("llama", {"hidden_act": "gelu"}, False),
        ("llama", {"vocab_size": 600_000, "hidden_size": 128}, False),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, False),
        ("phi3", {}, False),
    ],
)
def test_only_what_is_computed_alike_is_decoded_fused(
    model_type: str, options: dict[str, Any], fused: bool
) -> None:
    options = {"vocab_size": VOCAB, "hidden_size": 64, **options}
    with torch.device("meta"):
        config = AutoConfig.for_model(model_type, pad_token_id=PAD, num_hidden_layers=2, **options)
        model = AutoModelForCausalLM.from_config(config)
    assert not can_decode_fused(model)
    bind_kernels(model)
    assert can_decode_fused(model) is fused
    assert not can_decode_fused(model.to(torch.bfloat16))


def test_a_model_with_an_adapter_is_not_decoded_fused() -> None:
    model = tiny_model("qwen3", VOCAB, PAD, END, seed=0)
    bind_kernels(model)
    assert can_decode_fused(model)
    projection = model.model.layers[1].self_attn.k_proj
    model.model.layers[1].self_attn.k_proj = torch.nn.Sequential(projection)
    assert not can_decode_fused(model)


def random_prompts(count: int) -> list[list[int]]:
    rng = random.Random(count)
    return [[rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 9))] for _ in range(count)]


def assert_equal_completions(completions: list[Completion], expected: list[Completion]) -> None:
    assert [one.token_ids for one in completions] == [one.token_ids for one in expected]
    assert [one.truncated for one in completions] == [one.truncated for one in expected]
    for one, other in zip(completions, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_greedy_equals_transformers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    generator: Any = model  # The type of transformers' `generate` fits no model.
    prompts = random_prompts(12)
    completions = HFEngine(model, tokenizer, 5).complete(prompts, Sampling(0.0, 1.0, 24), range(12))
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = generator.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=24,
        )[0, len(prompt) :]
        assert completion.token_ids == expected.tolist()
    assert {completion.truncated for completion in completions} == {True, False}


def assert_logprobs_of_the_loss(
    model: PreTrainedModel,
    prompts: list[list[int]],
    completions: list[Completion],
    temperature: float,
) -> None:
    examples = [
        Example(prompt, completion.token_ids)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    with torch.no_grad():
        expected = token_logprobs(model, completion_batch(examples), temperature)
    logprobs = [value for completion in completions for value in completion.logprobs]
    assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("sampling", "temperature"),
    [
        (Sampling(0.7, 1.0, 20), 0.7),
        (Sampling(1.6, 1.0, 20), 1.6),
        (Sampling(0.7, 0.8, 20), 0.7),
        (Sampling(0.0, 1.0, 20), 1.0),
    ],
)
def test_rollout_logprobs_are_those_of_the_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    sampling: Sampling,
    temperature: float,
) -> None:
    prompts = random_prompts(16)
    completions = HFEngine(model, tokenizer, 16).complete(prompts, sampling, range(16))
    assert_logprobs_of_the_loss(model, prompts, completions, temperature)


def test_logprobs_hold_across_a_growing_cache(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = random_prompts(8)
    completions = HFEngine(model, tokenizer, 8).complete(
        prompts, Sampling(1.0, 1.0, 150), [*range(8)]
    )
    assert_logprobs_of_the_loss(model, prompts, completions, 1.0)


def test_completions_do_not_depend_on_batching_or_order(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts, seeds = random_prompts(15), [seed * 7919 + 2**62 for seed in range(15)]
    sampling = Sampling(1.1, 0.95, 30)
    alone = HFEngine(model, tokenizer, 1).complete(prompts, sampling, seeds)
    assert len({len(completion.token_ids) for completion in alone}) > 3
    for batch_size in (4, 15, 64):
        together = HFEngine(model, tokenizer, batch_size).complete(prompts, sampling, seeds)
        assert_equal_completions(together, alone)
    order = random.Random(0).sample(range(15), 15)
    shuffled = HFEngine(model, tokenizer, 6).complete(
        [prompts[row] for row in order], sampling, [seeds[row] for row in order]
    )
    assert_equal_completions(shuffled, [alone[row] for row in order])


@pytest.mark.parametrize("cache", [True, False])
def test_an_interrupted_completion_goes_on_as_if_it_had_not_been(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, cache: bool
) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    prompts = [" ".join(f"w{token}" for token in prompt) for prompt in random_prompts(12)]
    sampling, seeds = Sampling(1.1, 1.0, 20), range(12)
    engine = HFEngine(model, tokenizer, 5, cache)
    whole = engine.generate(prompts, sampling, seeds)
    assert {completion.truncated for completion in whole} == {True, False}
    completions = [NOTHING_YET] * 12
    # 7, 14 and 20 tokens: the last part is bounded by the whole completion's limit.
    for limit in (7, 14, 20):
        going_on = [row for row, one in enumerate(completions) if one.truncated]
        extended = engine.extend(
            [prompts[row] for row in going_on],
            [completions[row] for row in going_on],
            sampling,
            [seeds[row] for row in going_on],
            7,
        )
        for row, completion in zip(going_on, extended, strict=True):
            before = completions[row].token_ids
            assert completion.token_ids[: len(before)] == list(before)
            completions[row] = completion
        lengths = [len(completion.token_ids) for completion in completions]
        assert lengths == [min(limit, len(completion.token_ids)) for completion in whole]
    assert_equal_completions(completions, whole)
    assert [completion.text for completion in completions] == [one.text for one in whole]
    # What has all its tokens stays as it is.
    assert engine.extend(prompts[:1], whole[:1], Sampling(1.1, 1.0, 1), [0], 7) == whole[:1]


def test_seeds_separate_rollouts_of_one_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt = [4, 5, 6]
    completions = HFEngine(model, tokenizer, 8).complete(
        [prompt] * 8, Sampling(1.0, 1.0, 12), [1, 2, 3, 4, 5, 6, 7, 1]
    )
    assert completions[0].token_ids == completions[7].token_ids
    assert len({tuple(completion.token_ids) for completion in completions}) > 4


def test_a_completion_ends_with_the_end_token_or_is_truncated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    batches: list[Sequence[Completion]] = []
    completions = (
        HFEngine(model, tokenizer, 16)
        .reporting_to(batches.append)
        .complete(random_prompts(40), Sampling(1.0, 1.0, 9), range(40))
    )
    for completion in completions:
        *before, last = completion.token_ids
        assert END not in before
        assert completion.truncated is (last != END)
        assert len(completion.token_ids) == 9 or last == END
        assert len(completion.logprobs) == len(completion.token_ids)
        words = [f"w{token}" for token in completion.token_ids if token not in (PAD, END)]
        assert completion.text.split() == words
    assert {completion.truncated for completion in completions} == {True, False}
    assert [len(batch) for batch in batches] == [16, 16, 8]


def test_generation_does_not_change_the_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    try:
        HFEngine(model, tokenizer, 2).complete([[3], [4, 5]], Sampling(1.0, 1.0, 3), [0, 1])
        assert model.training
    finally:
        model.eval()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def sample_evenly(
    probs: list[float], sampling: Sampling, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and logprobs for `count` evenly spread uniforms, both ends included."""
    uniforms = torch.arange(count) / count
    uniforms[-1] = 1 - 2**-24  # This is the largest float32 that torch.rand returns.
    return sample(torch.tensor(probs).log().expand(count, -1).clone(), sampling, uniforms)


def test_sample_follows_the_probabilities() -> None:
    probs = [0.1, 0.0, 0.5, 0.15, 0.25]
    tokens, logprobs = sample_evenly(probs, Sampling(1.0, 1.0, 1), 2000)
    frequencies = torch.bincount(tokens, minlength=5) / 2000
    assert frequencies.tolist() == pytest.approx(probs, abs=2e-3)
    assert frequencies[1] == 0
    torch.testing.assert_close(logprobs.exp(), torch.tensor(probs)[tokens])


def test_sample_divides_the_logits_by_the_temperature() -> None:
    # p^(1/2), normalized: 0.04, 0.16, 0.64 -> 0.2, 0.4, 0.8 over 1.4.
    tokens, logprobs = sample_evenly([0.04, 0.16, 0.64], Sampling(2.0, 1.0, 1), 2000)
    expected = torch.tensor([1.0, 2.0, 4.0]) / 7
    frequencies = torch.bincount(tokens, minlength=3) / 2000
    assert frequencies.tolist() == pytest.approx(expected.tolist(), abs=2e-3)
    torch.testing.assert_close(logprobs.exp(), expected[tokens])


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [(0.4, [2]), (0.6, [2, 4]), (0.74, [2, 4]), (0.8, [2, 3, 4]), (0.95, [0, 2, 3, 4])],
)
def test_top_p_draws_from_the_nucleus_alone(top_p: float, nucleus: list[int]) -> None:
    probs = torch.tensor([0.1, 0.0, 0.5, 0.15, 0.25])
    tokens, logprobs = sample_evenly(probs.tolist(), Sampling(1.0, top_p, 1), 2000)
    expected = torch.zeros(5)
    expected[nucleus] = probs[nucleus] / probs[nucleus].sum()
    assert sorted(set(tokens.tolist())) == nucleus
    frequencies = torch.bincount(tokens, minlength=5) / 2000
    assert frequencies.tolist() == pytest.approx(expected.tolist(), abs=2e-3)
    # The loss has no truncation, so the logprobs have none either.
    torch.testing.assert_close(logprobs.exp(), probs[tokens])


def test_top_p_of_a_flat_distribution_needs_more_than_the_likeliest_few() -> None:
    probs = [1.0 + 0.001 * place for place in range(100)]
    total = sum(probs)
    tokens, _ = sample_evenly([p / total for p in probs], Sampling(1.0, 0.8, 1), 4000)
    nucleus, nucleus_prob = set(), 0.0
    for place in reversed(range(100)):
        if nucleus_prob >= 0.8:
            break
        nucleus.add(place)
        nucleus_prob += probs[place] / total
    assert set(tokens.tolist()) == nucleus


def test_a_row_samples_the_same_token_beside_others_as_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(20, 400, generator=generator)
    peaked = torch.randn(20, 400, generator=generator) * 8
    logits = torch.stack([flat, peaked], dim=1).flatten(0, 1)
    uniforms = torch.rand(40, generator=generator)
    sampling = Sampling(0.6, 0.95, 1)
    together, _ = sample(logits, sampling, uniforms)
    alone = [
        int(sample(row[None], sampling, uniform[None])[0])
        for row, uniform in zip(logits, uniforms, strict=True)
    ]
    assert together.tolist() == alone


@pytest.mark.parametrize("unused_ids", [None, torch.arange(400) >= 300], ids=["all", "padded"])
def test_chunks_on_a_cpu_change_no_sample(
    unused_ids: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(7, 400, generator=generator), torch.rand(7, generator=generator)
    logits[:, 300:] += 5
    sampling = Sampling(0.6, 0.95, 1)
    tokens, logprobs = sample(logits, sampling, uniforms, unused_ids)
    assert (tokens < 300).all() == (unused_ids is not None)
    monkeypatch.setattr(hf, "CHUNK_LOGITS_ON_CPU", 900)
    chunked = sample(logits, sampling, uniforms, unused_ids)
    assert torch.equal(chunked[0], tokens)
    assert torch.equal(chunked[1], logprobs)


def test_temperature_0_takes_the_likeliest_whatever_the_uniforms() -> None:
    tokens, logprobs = sample_evenly([0.3, 0.45, 0.25], Sampling(0.0, 0.5, 1), 10)
    assert tokens.tolist() == [1] * 10
    torch.testing.assert_close(logprobs.exp(), torch.full((10,), 0.45))


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_the_extreme_uniforms_never_draw_an_impossible_token(top_p: float) -> None:
    uniforms = torch.tensor([0.0, 1 - 2**-24])
    logits = torch.tensor([0.0, 0.5, 0.5, 0.0]).log().expand(2, -1)
    tokens, _ = sample(logits, Sampling(1.0, top_p, 1), uniforms)
    assert tokens.tolist() == [1, 2]


def test_a_prompt_that_comes_twice_has_the_tokens_that_it_has_alone(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}w2 {{ m['content'] }} w3{% endfor %}"
    prompts = ["w4 w5", "w6", "w4 w5"]
    tokens = prompt_tokens(tokenizer, prompts)
    assert tokens == [prompt_tokens(tokenizer, [prompt])[0] for prompt in prompts]
    assert tokens == [[2, 4, 5, 3], [2, 6, 3], [2, 4, 5, 3]]


def test_a_text_ends_where_the_context_does(tokenizer: PreTrainedTokenizerFast) -> None:
    """Prompts leave no room, room for 3 tokens, and more than is asked for."""
    policy = tiny_model("qwen3", VOCAB, PAD, END, seed=1, max_position_embeddings=12)
    prompts = [[2] * 12, [2] * 9, [2, 3]]
    engine = HFEngine(policy, tokenizer, batch_size=3)
    sampling, seeds = Sampling(1.0, 1.0, 6), [5, 6, 7]
    full, short, free = engine.complete(prompts, sampling, seeds)
    assert (full.token_ids, full.text, full.truncated) == ([], "", True)
    unlimited = tiny_model("qwen3", VOCAB, PAD, END, seed=1, max_position_embeddings=64)
    unbounded = HFEngine(unlimited, tokenizer, batch_size=3).complete(prompts, sampling, seeds)
    assert len(unbounded[1].token_ids) > 3
    assert list(short.token_ids) == list(unbounded[1].token_ids[:3])
    assert short.truncated
    assert (free.token_ids, free.text) == (unbounded[2].token_ids, unbounded[2].text)
    assert free.logprobs == pytest.approx(unbounded[2].logprobs, abs=1e-5)
