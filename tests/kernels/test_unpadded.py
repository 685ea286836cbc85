"""Rows read without their padding, and a common prompt once: the same values and gradients."""

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from reasoning_lab.data.tokens.batches import padded_batch, padded_rows
from reasoning_lab.kernels.logprobs import TokenBatch, Unpadded, token_logprobs, trained_logits
from reasoning_lab.types import Example
from tests.kernels.test_attention import Largest, built

# Two prompts, of which one begins three rows, between them a row that begins with the other.
ASKED, OTHER = [5, 6, 7, 8], [5, 6]
EXAMPLES = [
    Example(ASKED, [9]),
    Example(OTHER, [7, 8, 10, 11, 12, 13, 14, 15, 16, 17]),
    Example(ASKED, [9, 10, 11]),
    Example(ASKED, [18, 19, 20, 21, 22, 23, 24, 25]),
]


def test_by_hand() -> None:
    """Of five places a row: the first reads three, the others four, the third two of the first."""
    found = Unpadded.of((3, 5), [0, 5, 10], [3, 4, 4], [(0, 2), (1, 1), (0, 2)])
    # The longest come first.
    assert found.kept.tolist() == [5, 6, 7, 8, 12, 13, 0, 1, 2]
    assert found.before.tolist() == [[0, 6, 7, 0, 0], [0, 0, 1, 2, 0], [0, 6, 7, 4, 0]]
    assert found.documents.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 0, 1, 2]]
    assert found.documents.joined is not None
    assert found.documents.joined.laid.tolist() == [0, 1, 2, 3, 6, 7, 4, 5, 6, 7, 8]
    assert found.documents.ends.tolist() == [0, 4, 8, 11]


def test_packed_documents_by_hand() -> None:
    """Rows of five places, of which the last two are padding."""
    found = Unpadded.of((2, 5), [0, 2, 5], [2, 3, 3])
    assert found.kept.tolist() == [2, 3, 4, 5, 6, 7, 0, 1]
    assert found.before.tolist() == [[0, 6, 0, 0, 1], [0, 3, 4, 0, 0]]
    assert found.documents.shapes == ((2, 3), (1, 2))
    assert found.documents.joined is None


def gradients(model: PreTrainedModel, batch: TokenBatch) -> tuple[torch.Tensor, ...]:
    """Of a sum in which every token has a weight of its own."""
    model.zero_grad()
    logprobs = token_logprobs(model, batch, temperature=0.7)
    weights = torch.linspace(0.5, 2.0, logprobs.numel(), dtype=logprobs.dtype)
    (logprobs.flatten() * weights).sum().backward()  # type: ignore[no-untyped-call]
    found = [each.grad for each in model.parameters()]
    return logprobs.detach(), *(each.clone() for each in found if each is not None)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "phi3", "qwen2", "qwen3"])
def test_values_and_gradients_are_those_of_padded_rows(family: str, checkpointed: bool) -> None:
    model, batch = built(family), padded_batch(EXAMPLES, 0)
    assert batch.unpadded is not None
    assert len(batch.unpadded.kept) == 4 + 2 + 1 + 10 + 3 + 8
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    found = gradients(model, batch)
    expected = gradients(model, replace(batch, unpadded=None))
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        # The logits are float32.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rows_that_share_nothing_are_read_rounded_up() -> None:
    """Of 20, 33, 45 and 47 tokens, of which five binary digits are 34 and 46, and a row has 47."""
    rows = [
        Example([5 + row], [9 + row] * (length - 1)) for row, length in enumerate((20, 33, 45, 47))
    ]
    model, batch = built(), padded_batch(rows, 0)
    assert batch.unpadded is not None
    assert batch.unpadded.documents.shapes == ((1, 47), (1, 46), (1, 34), (1, 20))
    assert batch.unpadded.documents.padded is None
    found, expected = gradients(model, batch), gradients(model, replace(batch, unpadded=None))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_trained_logits_keep_their_order() -> None:
    model, batch = built(), padded_batch(EXAMPLES, 0)
    logits, targets = trained_logits(model, batch)
    padded_logits, padded_targets = trained_logits(model, replace(batch, unpadded=None))
    assert targets.tolist() == padded_targets.tolist()
    torch.testing.assert_close(logits, padded_logits)


def test_no_layer_reads_padding() -> None:
    """32 rows, all but one of them short: what a projection gives is far below the padded rows'."""
    model = built()
    rows = [Example(OTHER, [7] * (500 if number else 4)) for number in (1, *[0] * 31)]
    batch = padded_batch(rows, 0)
    with Largest() as largest:
        token_logprobs(model, batch).sum().backward()  # type: ignore[no-untyped-call]
    # 48 numbers inside a layer, 40 words.
    assert 0 < largest.values < 48 * batch.input_ids.numel() / 4


@pytest.mark.parametrize(
    ("family", "implementation", "window"),
    [("llama", "eager", None), ("olmo", "sdpa", None), ("mistral", "sdpa", 5)],
)
def test_other_models_read_the_padded_rows(
    family: str, implementation: str, window: int | None
) -> None:
    model = built(family, **({} if window is None else {"sliding_window": window}))
    model.set_attn_implementation(implementation)
    batch = padded_batch(EXAMPLES, 0)
    with torch.no_grad():
        found = token_logprobs(model, batch)
        expected = token_logprobs(model, replace(batch, unpadded=None))
    assert model.config._attn_implementation == implementation
    assert torch.equal(found, expected)


def test_a_batch_with_little_to_save_stays_as_it_is() -> None:
    even = [Example([number, 6, 7, 8], [9] * 10) for number in (5, 6, 7)]
    assert padded_batch(even, 0).unpadded is None
    assert padded_batch([*even, Example([9], [9])], 0).unpadded is not None
    same = [Example([5, 6, 7, 8], [9] * 10)] * 3
    assert padded_batch(same, 0).unpadded is not None
    # Two tokens of 120 are read twice.
    assert padded_batch([Example([5, 6], [9] * 58)] * 2, 0).unpadded is None


def test_rows_of_several_examples_share_their_first_prompt_alone() -> None:
    first, other = Example(ASKED, [9, 10]), Example(ASKED, [11, 12, 13])
    batch = padded_rows([[first, other], [first, first], [first]], 0)
    assert batch.unpadded is not None
    assert len(batch.unpadded.kept) == (6 + 7) + (2 + 6) + 2
