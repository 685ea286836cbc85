"""Mixed precision: small steps add up in float32 weights, and whatever reads them reads alike."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasoning_lab.config.optimization import OptimizerConfig
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.strategies import sampling_model
from reasoning_lab.types import Example, UserError
from tests.conftest import Compose
from tests.support.stages import optimization, run_stage, weights


def moved(context: StageContext, dtype: str, folder: Path) -> float:
    """Fraction of the weights that two of the paper's small steps of AdamW change."""
    (folder / "out").mkdir(parents=True)
    model = replace(context.model, dtype=dtype)
    here = replace(context, model=model, out_dir=folder / "out", work_dir=folder / "work")
    adamw = OptimizerConfig("torch.optim.AdamW", weight_decay=0.0)
    steps = optimization(optimizer=adamw, learning_rate=5e-7, length="2 steps", batch_size=4)
    run_stage(SFTStage(levels=[1], count=20, optimization=steps), here)
    policy, _ = load_policy(context.inputs["policy"].path, dtype)
    before = policy.state_dict()
    after = weights(here.out_dir)
    changed = sum(int((after[name] != before[name]).sum()) for name in after)
    return changed / sum(value.numel() for value in after.values())


def test_small_steps_are_kept_where_bfloat16_rounds_them_away(
    context: StageContext,
    tmp_path: Path,
) -> None:
    """AdamW's first steps are as long as the rate: 5e-7, where bfloat16 resolves 1/256 of a weight.

    Only a weight below 1.3e-4 moves by it; of weights with a standard deviation of 0.02, 1 in 200.
    """
    lost, mixed = (moved(context, dtype, tmp_path / dtype) for dtype in ("bfloat16", "mixed"))
    whole = moved(context, "float32", tmp_path / "float32")
    assert lost < 0.03
    # The embeddings of tokens that no row has do not move.
    assert mixed > 0.6 * whole > 0.3


def test_what_samples_in_bfloat16_is_a_copy_unless_the_policy_is(context: StageContext) -> None:
    start = Policy(context.inputs["policy"].path)
    for dtype, is_copy in (("float32", True), ("bfloat16", False)):
        here = replace(context, model=replace(context.model, dtype=dtype))
        policy, _ = here.load_student(start)
        # As a quantized base has them.
        codes = torch.nn.Parameter(torch.arange(3, dtype=torch.uint8), requires_grad=False)
        policy.register_parameter("codes", codes)
        sampling_policy = sampling_model(policy, "single", in_bfloat16=True)
        assert (sampling_policy is not policy) == is_copy
        sampled = dict(sampling_policy.named_parameters())
        assert sampled.pop("codes").dtype == torch.uint8
        assert {weight.dtype for weight in sampled.values()} == {torch.bfloat16}


def test_what_samples_is_a_mixed_policys_copy_in_bfloat16(
    context: StageContext,
) -> None:
    here = replace(context, model=replace(context.model, dtype="mixed"))
    start = Policy(context.inputs["policy"].path)
    policy, tokenizer = here.load_student(start)
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}
    sampling_policy = sampling_model(policy, "single")
    served, _ = here.load_policy(start)
    for name, weight in sampling_policy.state_dict().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, served.state_dict()[name]), name
    for name, buffer in sampling_policy.named_buffers():
        assert buffer.dtype == dict(served.named_buffers())[name].dtype, name
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=24)
    prompts = [tokenizer(prompt)["input_ids"] for prompt in ("coin 1", "coin 12")]
    drawn = HFEngine(sampling_policy, tokenizer, 8).complete(prompts, sampling, [1, 2])
    rows = [
        Example(tuple(prompt), tuple(completion.token_ids))
        for prompt, completion in zip(prompts, drawn, strict=True)
    ]
    batch = completion_batch(rows)
    whole, _ = load_policy(context.inputs["policy"].path, "float32")
    with torch.no_grad():
        ours, exact = token_logprobs(policy, batch), token_logprobs(whole, batch)
    logprobs = [value for completion in drawn for value in completion.logprobs]
    assert ours.tolist() == pytest.approx(logprobs, abs=0.1)
    # Products were taken in bfloat16, which has three decimal digits.
    assert 1e-4 < (ours - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hardware.strategy=deepspeed3"], "strategy=deepspeed3 keeps float32 weights beside"),
        (["model/adapter=lora"], "an adapter learns in float32 whatever it is put into; set"),
    ],
)
def test_what_needs_no_mixed_precision_is_one_sentence(
    overrides: list[str], message: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=f"^model.dtype=mixed: {message}"):
        composed("model.dtype=mixed", *overrides)
