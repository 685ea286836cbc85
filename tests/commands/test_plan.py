"""`plan` from stored work that differs in its budget alone, and else from configs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from reasoning_lab.commands.estimates import Costs
from reasoning_lab.commands.plan import PlannedNode, planned
from reasoning_lab.commands.prices import NodeConfig, price
from reasoning_lab.commands.print_plan import (
    between,
    disk,
    needs_table,
    price_table,
    summary,
    too_large,
)
from reasoning_lab.commands.requirements import requirements
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.graph.record import Metadata
from reasoning_lab.graph.store import Store
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.sampling.config import OpenAIEngineConfig, VLLMEngineConfig
from tests.support.composition import PHI4_BY_TRANSFORMERS, composed_recipe

TEACHER = "Qwen/Qwen2.5-0.5B"
SECONDS = ((" h", 3600.0), (" min", 60.0), (" s", 1.0))


def plan(*overrides: str) -> dict[str, PlannedNode]:
    return {node.stage: node for node in planned([composed_recipe(*overrides)])}


def midtrain(runs: Path, *overrides: str) -> PlannedNode:
    return plan("experiment=smoke", f"paths.runs={runs}", *overrides)["midtrain"]


def store_measured(runs: Path, wall_s: float, train_tokens: int, *overrides: str) -> None:
    """What a run of the smoke recipe's mid-training, 4 steps of 2 rows, would have left."""
    recipe = composed_recipe("experiment=smoke", f"paths.runs={runs}", *overrides)
    (node,) = (node for node in recipe.nodes if node.name == "midtrain")
    metrics = {
        "planned_rows": node.stage.workload().rows,
        "wall_s": wall_s,
        "train_tokens": train_tokens,
        "hardware": recipe.root.hardware.kind,
    }
    Store(runs / "store").obtain(
        node.stage.name,
        node.fingerprint,
        lambda out, work: Metadata(
            kind="policy", identity=node.identity, inputs={}, seed=0, metrics=metrics, versions={}
        ),
    )


@pytest.mark.parametrize(
    ("overrides", "wall_s"),
    [
        (["seed=1"], 6),
        (["seed=1", "stages.midtrain.optimization.length=40 steps"], 60),
        # More than ten times the rows that were measured: start-up is most of so short a run.
        (["seed=1", "stages.midtrain.optimization.length=44 steps"], None),
        # Rows of another length cost something else.
        (["seed=1", "stages.midtrain.row_tokens=4096"], None),
        (["seed=1", "model.architecture.hidden_size=32"], None),
        # So does other hardware.
        (["seed=1", "hardware.threads=77"], None),
        (["seed=1", "hardware=gpu"], None),
    ],
)
def test_only_like_work_is_scaled(
    overrides: list[str], wall_s: float | None, tmp_path: Path
) -> None:
    store_measured(tmp_path, 6.0, 1000)
    planned_price = midtrain(tmp_path, *overrides).price
    assert planned_price.measured == (wall_s is not None)
    assert (planned_price.wall_s.least, planned_price.wall_s.most) == (wall_s, wall_s)


def test_like_runs_that_differ_are_the_bounds(tmp_path: Path) -> None:
    """Two runs of 8 rows and one of 16; of 44 steps, 88 rows, the first two are too short."""
    store_measured(tmp_path, 6.0, 1000)
    store_measured(tmp_path, 8.0, 1200, "seed=1")
    twice = "stages.midtrain.optimization.length=8 steps"
    store_measured(tmp_path, 10.0, 1800, "seed=2", twice)
    both = midtrain(tmp_path, "seed=3", twice).price
    assert both.wall_s == Bounds(10.0, 16.0, extrapolated=True)
    assert both.train_tokens == Bounds(1800, 2400, extrapolated=True)
    longer = midtrain(tmp_path, "seed=3", "stages.midtrain.optimization.length=44 steps").price
    assert longer.wall_s == Bounds(55.0, 55.0, extrapolated=True)
    # What is in the store took what it took.
    assert midtrain(tmp_path, "seed=1").price.wall_s == Bounds.exactly(8.0)


def test_run_that_trained_on_nothing_says_nothing_of_tokens(tmp_path: Path) -> None:
    store_measured(tmp_path, wall_s=6.0, train_tokens=0)
    assert midtrain(tmp_path, "seed=1").price.train_tokens == Bounds(None, 4 * 2 * 512)


def test_measured_tokens_give_a_gpu_a_lower_time(tmp_path: Path) -> None:
    """Half of the tokens take less than half of the time: attention is the less as well."""
    store_measured(tmp_path, wall_s=6.0, train_tokens=4 * 512)
    on_gpu = ["seed=1", "hardware=gpu", "hardware.gpu_model=l4"]
    measured = midtrain(tmp_path, *on_gpu).price.wall_s
    bound = midtrain(tmp_path / "empty", *on_gpu).price.wall_s
    assert (bound.least, bound.extrapolated, measured.extrapolated) == (None, False, True)
    assert measured.most is not None
    assert bound.most is not None
    assert 0.4 * bound.most < measured.most < 0.5 * bound.most


def test_a_single_process_decodes_while_the_other_devices_wait() -> None:
    """30 problems, 3 samples: 90 rows are 8 rounds of 12, on one of eight devices."""
    node = plan(*PHI4_BY_TRANSFORMERS, "hardware.price_per_hour=2.5")["base/aime24"]
    read = (2 * 3.836e9 + 12 * 32768 / 2 * 2 * 2 * 1024 * 32) / 3.35e12
    seconds = 8 * 32768 * (read + 40 * 33 * 5e-6)
    assert node.price.devices == 8
    assert node.price.wall_s.most == pytest.approx(seconds, rel=1e-3)
    assert node.price.device_s.most == pytest.approx(8 * seconds, rel=1e-3)
    assert node.price.money is not None
    assert node.price.money.most == pytest.approx(8 * seconds / 3600 * 2.5, rel=1e-3)
    assert plan(*PHI4_BY_TRANSFORMERS)["base/aime24"].price.money is None


def test_a_cluster_is_asked_for_no_more_than_a_stage_takes() -> None:
    slurm = plan(*PHI4_BY_TRANSFORMERS, "hardware=slurm", "hardware.gpu_model=h100")
    assert (slurm["base/aime24"].price.devices, slurm["midtrain"].price.devices) == (1, 16)


def answered_by(engine: EngineConfig) -> NodeConfig:
    """The base model on AIME 2024, as if the engine's package were there."""
    recipe = composed_recipe(*PHI4_BY_TRANSFORMERS)
    (node,) = (node for node in recipe.nodes if node.name == "base/aime24")
    assert isinstance(node.stage, EvaluateStage)
    return NodeConfig(replace(node, stage=replace(node.stage, engine=engine)), recipe.root)


def test_vllm_decodes_as_many_rows_as_its_cache_holds() -> None:
    """Of 80 GB a tenth is free, and weights take 7.67: 14 rows of 32,768 tokens of 128 KiB."""
    config = answered_by(VLLMEngineConfig(model="policy"))
    read = (2 * 3.836e9 + 14 * 32768 / 2 * 2 * 2 * 1024 * 32) / 3.35e12
    wall_s = price(config, Costs([])).wall_s
    assert wall_s.most == pytest.approx(7 * 32768 * read, rel=1e-3)
    device = requirements(config, None, None, Costs([])).device
    assert device is not None
    assert device.least == pytest.approx(2 * 3.836e9, rel=1e-3)
    assert device.most == pytest.approx(0.9 * 80e9)


def test_a_server_elsewhere_takes_no_memory_here() -> None:
    config = answered_by(OpenAIEngineConfig(model="served"))
    assert price(config, Costs([])).wall_s == Bounds()
    assert requirements(config, None, None, Costs([])).device is None


def test_disk_of_the_papers_mid_training() -> None:
    """float32 weights, a state of three such values each, tables of four bytes a token."""
    needs = plan(*PHI4_BY_TRANSFORMERS)["midtrain"].needs
    parameters = 3.836e9
    assert needs.artifact.least == pytest.approx(4 * parameters, rel=1e-3)
    # At most 7,812 steps, of which every 200th leaves a state; two are kept beside the next.
    assert needs.work.least == 0
    assert needs.work.most == pytest.approx(3 * 12 * parameters, rel=1e-3)
    # RL takes 200 for certain, and saves every tenth.
    assert plan(*PHI4_BY_TRANSFORMERS)["rl"].needs.work.least == pytest.approx(
        2 * 12 * parameters, rel=1e-3
    )
    # An epoch of 200,000 rollouts, each of at most a row of 16,384 tokens.
    assert needs.tables == Bounds(0, 200_000 * (4 * 16384 + 28) + 1e6)
    # Eight processes load the whole policy; what it samples is none of theirs.
    assert needs.rank is not None
    assert needs.machine is not None
    assert needs.rank.least == pytest.approx(4 * parameters + 0.25e9, rel=1e-3)
    assert needs.machine.least == pytest.approx(8 * (4 * parameters + 0.25e9) + 0.1e9, rel=1e-3)


def test_memory_and_disk_of_what_is_sampled() -> None:
    """12 rows of 32,768 tokens of 128 KiB with a quarter of room, and logits of 200,064 words."""
    nodes = plan(*PHI4_BY_TRANSFORMERS)
    evaluation, rl = nodes["base/aime24"].needs, nodes["rl"].needs
    cache = 1.25 * 12 * 32768 * 2**17 + 12 * 12 * 200064
    assert evaluation.device is not None
    assert evaluation.device.most == pytest.approx(2 * 3.836e9 + cache, rel=1e-4)
    # 90 completions are in memory together, and of a step of RL 128 groups of 8 + 8.
    assert evaluation.rank is not None
    assert evaluation.rank.most == pytest.approx(4e9 + 4 * 3.836e9 + 100 * 90 * 32768, rel=1e-4)
    of_step = 100 * 128 * 16 * 25600
    assert rl.rank is not None
    assert rl.rank.most == pytest.approx(4e9 + (2 * 4 + 2) * 3.836e9 + of_step, rel=1e-4)
    assert evaluation.artifact == Bounds(0, 90 * (8192 + 16 * 32768) + 1e6)


def test_a_teacher_is_in_memory_and_reads_what_trains() -> None:
    """Qwen2.5's 494,032,768 parameters beside SmolLM2; its forward pass is all that RL has not."""
    small = ("recipe=evaluate", "model=smollm2_135m", "data=tiny", "benchmark=[]")
    rl, opd = (
        plan(
            *small,
            f"+stage@stages.{name}={name}",
            f"stages.{name}.problems.count=64",
            f"stages.{name}.group_size=4",
            f"stages.{name}.max_new_tokens=100",
            f"stages.{name}.epochs=2",
            f"stages.{name}.optimization.length=3 steps",
            f"stages.{name}.optimization.batch_size=8",
            *([f"stages.opd.teacher.path={TEACHER}"] if name == "opd" else []),
            *words,
        )[name]
        for name, words in (("rl", []), ("opd", ["stages.opd.teacher.dtype=bfloat16"]))
    )
    assert rl.memory is not None
    assert opd.memory is not None
    assert opd.memory.copies - rl.memory.copies == 2 * 494_032_768
    # 24 layers with queries of 896; the table of embeddings is the projection too.
    tokens = 3 * 8 * 4 * 100
    expected = tokens * 2 * (494_032_768 + 24 * 896 * 100)
    assert rl.price.flops.most is not None
    assert opd.price.flops.most is not None
    assert opd.price.flops.most - rl.price.flops.most == pytest.approx(expected, rel=0.01)


def test_a_teacher_that_nothing_describes_leaves_memory_and_work_unknown() -> None:
    node = plan(
        "recipe=evaluate",
        "model=smollm2_135m",
        "data=tiny",
        "benchmark=[]",
        "+stage@stages.opd=opd",
        "stages.opd.teacher.path=some/model",
    )["opd"]
    assert (node.memory, node.needs.device, node.price.flops) == (None, None, Bounds())


def test_best_weights_take_disk_and_validation_takes_writing() -> None:
    """Weights of 3.2 MB: of each state that is kept, the best so far, and one being written."""
    plain, best = (
        plan(),
        plan(
            "stages.midtrain.weights=best_loss",
            "stages.midtrain.keep_last=true",
            "stages.midtrain.optimization.keep_checkpoints=3",
            "stages.midtrain.validation={count: 10, every_steps: 400, max_new_tokens: 20}",
            "stages.midtrain.validation={samples: 2, levels: [1]}",
        ),
    )
    before, after = plain["midtrain"].needs, best["midtrain"].needs
    assert after.artifact == before.artifact + before.artifact
    # Before the first step, after steps 400 and 800, and after the last.
    assert best["midtrain"].price.written_tokens.most == 4 * 10 * 2 * 20
    more_states = plan("stages.midtrain.optimization.keep_checkpoints=3")["midtrain"].needs.work
    assert after.work.most is not None
    assert more_states.most is not None
    assert after.work.most - more_states.most > 5 * 3.2e6


def test_disk_of_pairs_and_of_their_tokens() -> None:
    """gsm8k: a pair of each of 2,000 problems at most, two documents; of eight rollouts each."""
    nodes = plan("experiment=gsm8k")
    prefer, dpo = nodes["prefer"].needs, nodes["dpo"].needs
    problems, rollouts = 2_000, 16_000
    row = 8192 + 16 * 2048
    assert prefer.artifact == Bounds(0, 2 * problems * row + 1e6)
    assert prefer.work == Bounds(0, rollouts * row + 1e6)
    assert dpo.tables == Bounds(0, 2 * problems * (4 * 4096 + 28) + 1e6)


def test_what_nothing_bounds_is_said_to_be_unknown() -> None:
    nodes = plan(*PHI4_BY_TRANSFORMERS)
    assert nodes["distill"].needs.artifact == Bounds(0)
    assert nodes["distill"].price.wall_s == Bounds()
    assert summary(list(nodes.values())).endswith("and 3 of unknown time.")


def test_disk_of_the_cache_is_known_where_the_model_is() -> None:
    recipe = composed_recipe(*PHI4_BY_TRANSFORMERS)
    text = disk(planned([recipe]), [recipe.root.model], ["benchmarks.aime24"])
    # 3.836 billion parameters of two or of four bytes.
    assert "cache: microsoft/Phi-4-mini-instruct, 7.7–15.3 GB." in text
    assert "without 3 whose texts nothing bounds" in text
    assert text.endswith("neither checked nor sized: benchmarks.aime24.")
    other = replace(recipe.root.model, architecture={"model_type": "other"})
    assert "Phi-4-mini-instruct, of unknown size." in disk([], [other], [])


def test_stages_that_may_not_fit_a_known_gpu_are_named() -> None:
    """256 rows of 32,768 tokens of 112 KiB are 962 GB, and of 2,048 tokens 60."""
    of_gsm8k = ["experiment=gsm8k", "hardware=gpu"]
    hardware = composed_recipe(*of_gsm8k, "hardware.gpu_model=h100").root.hardware
    nodes = list(plan(*of_gsm8k, "hardware.gpu_model=h100").values())
    (line,) = too_large(nodes, hardware)
    assert line.startswith("May not fit the 80.0 GB of one h100: base/gsm8k, ")
    assert "prefer" not in line
    assert too_large(nodes, composed_recipe(*of_gsm8k).root.hardware) == []


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (None, ""),
        (Bounds.exactly(0), ""),
        (Bounds(), "?"),
        (Bounds(0), "?"),
        (Bounds(None, 90), "≤1.5 min"),
        (Bounds(5400), "≥1.5 h"),
        (Bounds.exactly(59), "59.0 s"),
        (Bounds(5400, 36000), "1.5–10.0 h"),
        # Too little for the other's unit.
        (Bounds(30, 36000), "30.0 s–10.0 h"),
        (Bounds(5400, 5401, extrapolated=True), "~1.5 h"),
        (Bounds(None, 360_000), "≤100 h"),
    ],
)
def test_bounds_are_written(bounds: Bounds | None, text: str) -> None:
    assert between(bounds, SECONDS) == text


@pytest.mark.parametrize(
    "overrides",
    [
        [*PHI4_BY_TRANSFORMERS, "hardware.price_per_hour=2.5"],
        ["experiment=gsm8k"],
        ["experiment=smoke"],
    ],
)
def test_both_tables_fit_a_hundred_columns(overrides: list[str]) -> None:
    nodes = list(plan(*overrides).values())
    for table in (price_table(nodes), needs_table(nodes)):
        console = Console(width=100)
        with console.capture() as capture:
            console.print(table)
        lines = capture.get().splitlines()
        assert max(map(len, lines)) <= 100
        assert "…" not in capture.get()
        # No figure is broken in two.
        assert not any(re.search(r"^\s+\S*\d", line) for line in lines)
