"""What a rehearsal cuts of a run's settings, and what it leaves as it is."""

from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from reasoning_lab.commands.compose import typed
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.shrink import shrunk, with_installed_engines, with_models
from reasoning_lab.config.benchmark import ProtocolConfig
from reasoning_lab.config.fields import at_least
from reasoning_lab.training.stage import LabStage
from tests.conftest import Compose
from tests.support.composition import composed_config

PAPER = ("experiment=phi4_mini_reasoning",)


@pytest.fixture(scope="module")
def paper() -> RootConfig:
    """Without vLLM, which it asks for."""
    return with_installed_engines(typed(composed_config(*PAPER)))[0]


def test_every_length_is_cut_by_one_factor(paper: RootConfig) -> None:
    """The longest is the benchmarks' 32,768 tokens, of which 512 are left: a 64th of each."""
    small = shrunk(paper, "runs")
    assert small.factor == 512 / 32768
    stages = small.root.stages
    lengths = {
        "midtrain": stages["midtrain"].row_tokens,  # type: ignore[attr-defined]
        "sft": stages["sft"].max_tokens,  # type: ignore[attr-defined]
        "dpo": stages["dpo"].max_tokens,  # type: ignore[attr-defined]
        "rl": stages["rl"].max_new_tokens,  # type: ignore[attr-defined]
    }
    # 16,384, 20,480, 16,384 and 25,600 tokens.
    assert lengths == {"midtrain": 256, "sft": 320, "dpo": 256, "rl": 400}
    assert {b.sampling.max_new_tokens for b in small.root.benchmarks.values()} == {512}


def test_no_length_is_cut_below_what_a_prompt_and_an_answer_take(composed: Compose) -> None:
    """A 64th of 2,048 tokens is 32, which no document has."""
    root = shrunk(composed("experiment=gsm8k").root, "runs").root
    assert root.stages["rl"].max_new_tokens == 192  # type: ignore[attr-defined]


def test_short_lengths_stay(composed: Compose) -> None:
    root = composed("experiment=smoke").root
    small = shrunk(root, "runs")
    assert small.factor == 1.0
    assert small.root.stages["rl"].max_new_tokens == 32  # type: ignore[attr-defined]


def test_strategy_and_accumulation_stay_with_two_processes(paper: RootConfig) -> None:
    hardware = shrunk(paper, "runs").root.hardware
    assert (hardware.strategy, hardware.devices, hardware.accelerator) == ("fsdp", 2, "cpu")
    # 128 rows of 8 devices with micro-batches of 1: several micro-batches a step.
    assert hardware.micro_batch_size == 1
    assert hardware.activation_checkpointing


def test_one_device_stays_one_process(composed: Compose) -> None:
    hardware = shrunk(composed("experiment=smoke").root, "runs").root.hardware
    assert (hardware.strategy, hardware.devices) == ("single", 1)


@pytest.mark.parametrize("option", ["slurm", "ray"])
def test_clusters_are_left_out_and_that_is_said(option: str, composed: Compose) -> None:
    small = shrunk(composed("experiment=gsm8k", f"hardware={option}").root, "runs")
    assert small.root.hardware.slurm is None
    assert small.root.hardware.ray is None
    assert small.root.hardware.nodes == 1
    assert any(note.startswith(f"hardware.{option}: ") for note in small.notes)


def test_trainings_take_a_few_steps_of_batches_that_processes_divide(paper: RootConfig) -> None:
    """Two rows a process, and eight prompts of RL, of which some shall have a signal."""
    for name, stage in shrunk(paper, "runs").root.stages.items():
        if optimization := getattr(stage, "optimization", None):
            assert optimization.length in ("1 epoch", "2 steps")
            assert optimization.batch_size == (16 if name == "rl" else 4)


def test_what_is_learned_and_how_stays(paper: RootConfig) -> None:
    small = shrunk(paper, "runs").root
    assert list(small.stages) == list(paper.stages)
    for name, stage in paper.stages.items():
        optimization = getattr(stage, "optimization", None)
        if optimization is not None:
            of_small = small.stages[name].optimization  # type: ignore[attr-defined]
            assert of_small.optimizer == optimization.optimizer
            assert of_small.schedule == optimization.schedule
            assert of_small.learning_rate == optimization.learning_rate
    assert small.stages["rl"].filter.max_pass_rate == 0.5  # type: ignore[attr-defined]
    assert small.model == paper.model


def test_benchmarks_keep_their_protocol_with_few_problems(paper: RootConfig) -> None:
    small = shrunk(paper, "runs").root
    assert {(b.count, b.samples) for b in small.benchmarks.values()} == {(4, 2)}
    assert {b.sampling.temperature for b in small.benchmarks.values()} == {
        b.sampling.temperature for b in paper.benchmarks.values()
    }
    assert small.protocol == ProtocolConfig()


def test_output_goes_to_a_folder_of_its_own_and_the_tracker_writes_no_server(
    paper: RootConfig,
) -> None:
    small = shrunk(paper, "elsewhere").root
    assert small.paths.runs == "elsewhere"
    assert small.tracker.mode == "offline"


@dataclass
class CountingStage(LabStage):
    name = "counting"

    count: int = at_least(1)
    longest_tokens: int = at_least(1)
    samples: int = at_least(1)


def test_a_stage_of_ones_own_is_cut_by_the_names_of_its_keys(composed: Compose) -> None:
    root = composed("recipe=evaluate", "model=checkpoint", "model.path=a/b").root
    root = RootConfig(
        **{
            **vars(root),
            "stages": {"counting": CountingStage(count=900, longest_tokens=5120, samples=64)},
        }
    )
    small = shrunk(root, "runs")
    assert small.factor == 0.1
    assert small.root.stages["counting"] == CountingStage(count=24, longest_tokens=512, samples=2)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_transformers_takes_the_place_of_vllm_where_it_is_missing(composed: Compose) -> None:
    root = composed("experiment=gsm8k").root
    stage = root.stages["rl"]
    stages = {**root.stages, "rl": type(stage)(**{**vars(stage), "rollout_engine": "vllm"})}
    changed, notes = with_installed_engines(RootConfig(**{**vars(root), "stages": stages}))
    assert changed.stages["rl"].rollout_engine == "hf"  # type: ignore[attr-defined]
    assert notes[0].startswith("stages.rl.rollout_engine: vLLM is not installed")


def test_models_of_teachers_are_replaced_and_the_students_are_not(composed: Compose) -> None:
    root = composed(
        "recipe=distill",
        "teacher@stages.distill.teacher=model",
        "engine@stages.distill.teacher.engine=hf",
        "stages.distill.teacher.engine.model=some/teacher",
    ).root
    changed = with_models(root, lambda engine, key: engine.for_policy("twin", None, "float32"))
    assert changed.stages["distill"].teacher.engine.model == "twin"  # type: ignore[attr-defined]
    assert changed.model == root.model


def test_a_rehearsal_pushes_nothing(composed: Compose) -> None:
    small = shrunk(composed("experiment=smoke", "publish.repository=me/tiny").root, "runs")
    assert small.root.publish.repository is None
    assert "publish.repository: nothing is pushed" in small.notes


@pytest.mark.parametrize(("rate", "expected"), [(0.02, 0.2), (0.4, 0.4), (0.0, 0.0)])
def test_a_teacher_that_seldom_slips_does_so_often_enough_for_pairs(
    rate: float, expected: float, composed: Compose
) -> None:
    """One that never slips leaves no pairs in the run either, which the rehearsal must find."""
    root = composed(f"stages.distill.teacher.unnoticed_slip_rate={rate}").root
    small = shrunk(root, "runs")
    teacher = small.root.stages["distill"].teacher  # type: ignore[attr-defined]
    assert teacher.unnoticed_slip_rate == expected
    assert any("unnoticed_slip_rate" in note for note in small.notes) == (rate != expected)
