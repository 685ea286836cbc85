"""Real vLLMs in processes beside the trainers, one a rank; `make test-vllm`."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.launch.job import launched
from reasoning_lab.models.adapters import merged_weights
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.engine_process import EngineProcess
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.sampling.vllm import VLLMEngine, vllm_environment
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.job import Job
from reasoning_lab.types import Example
from tests.sampling.test_vllm import PROMPTS, assert_same_tokens, tiny  # noqa: F401 - a fixture
from tests.sampling.test_vllm_launcher import (
    HARDWARE,
    STEPS,
    job,  # noqa: F401 - a fixture
    same_training,
    trained_here,
    with_servers,
)
from tests.support.engine_processes import engines_of, live
from tests.support.launches import after_first_checkpoint, stage_processes

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def engine(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:  # noqa: F811
    build = partial(VLLMEngine, str(tiny), None, "float32", None, HARDWARE)
    output = tmp_path_factory.mktemp("engine") / "log"
    process = EngineProcess(build, vllm_environment(HARDWARE), output, "vLLM")
    yield process
    process.close()


def test_a_vllm_elsewhere_samples_from_the_weights_that_it_was_given_last(
    engine: EngineProcess,
    tiny: Path,  # noqa: F811
) -> None:
    policy, tokenizer = load_policy(tiny, "float32")
    greedy, seeds = Sampling(0.0, 1.0, 24), range(len(PROMPTS))
    before = engine.generate(PROMPTS, greedy, seeds)
    assert_same_tokens(before, HFEngine(policy, tokenizer, 16).generate(PROMPTS, greedy, seeds))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    engine.load(lambda: merged_weights(policy), 1)
    expected = HFEngine(policy, tokenizer, 16).generate(PROMPTS, greedy, seeds)
    assert [one.text for one in expected] != [one.text for one in before]
    assert_same_tokens(engine.generate(PROMPTS, greedy, seeds), expected)
    hot = Sampling(1.0, 1.0, 24)
    drawn = engine.generate(PROMPTS, hot, seeds)
    os.kill(engine.pid, signal.SIGKILL)
    assert_same_tokens(engine.generate(PROMPTS, hot, seeds), drawn)


def test_engine_and_trainer_agree_after_each_of_ten_large_updates(
    engine: EngineProcess,
    tiny: Path,  # noqa: F811
) -> None:
    """By the logprobs of the engine's own tokens, as the loss reads them."""
    policy, tokenizer = load_policy(tiny, "float32")
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    prompts = prompt_tokens(tokenizer, PROMPTS)
    sampling, count = Sampling(0.7, 1.0, 24), len(PROMPTS)
    advantages = torch.linspace(-1.0, 1.0, count)
    for update in range(10):
        engine.load(lambda: merged_weights(policy), 2 + update)
        seeds = range(count * update, count * (update + 1))
        completions = engine.generate(PROMPTS, sampling, seeds)
        engine_logprobs = torch.tensor([value for one in completions for value in one.logprobs])
        batch = completion_batch(
            [
                Example(prompt, one.token_ids)
                for prompt, one in zip(prompts, completions, strict=True)
            ]
        )
        logprobs = token_logprobs(policy, batch, sampling.temperature)
        assert float((logprobs.detach() - engine_logprobs).abs().max()) < 1e-4, update
        optimizer.zero_grad()
        loss = -(advantages.repeat_interleave(batch.trained_lengths) * logprobs).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            moved = token_logprobs(policy, batch, sampling.temperature) - engine_logprobs
        # An engine that kept the weights before this update would be seen.
        assert float(moved.abs().mean()) > 0.1, update


@pytest.fixture(scope="module")
def inside(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:  # noqa: F811
    """Trained by one process, which has vLLM in it."""
    single = with_servers(job, tmp_path_factory.mktemp("inside") / "run", [])
    trained_here(single)
    return single


@pytest.mark.parametrize(
    "strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.soak), "deepspeed3"]
)
def test_two_ranks_with_a_vllm_each_learn_what_one_does(
    strategy: str,
    job: Job,  # noqa: F811
    inside: Job,
    tmp_path: Path,
) -> None:
    """Also where the vLLM of one of them is killed."""
    pair = with_servers(job, tmp_path / "run", [], devices=2, strategy=strategy)
    config = pair.stage
    optimization = replace(config.optimization, checkpoint_every_steps=1)  # type: ignore[attr-defined]
    pair = replace(pair, stage=replace(config, optimization=optimization))  # type: ignore[call-arg]
    killed: list[int] = []

    def kill() -> None:
        engines = engines_of(pair.work_dir)
        assert sorted(engines) == ["vllm-0.log", "vllm-1.log"]
        killed.extend(engines.values())
        os.kill(engines["vllm-1.log"], signal.SIGKILL)

    killer = after_first_checkpoint(pair.work_dir, kill)
    launched(pair)
    killer.join()
    curves = read_history(pair.out_dir)
    # The policy goes far, and the engines with it.
    assert curves["train/kl_to_reference"][STEPS - 1] > 0.05
    assert max(curves["mismatch/logprob_difference_max"].values()) < 1e-4
    same_training(pair, inside)
    assert not stage_processes(tmp_path)
    assert len(killed) == 2
    assert not any(live(group) for group in killed)
    assert not engines_of(pair.work_dir)
