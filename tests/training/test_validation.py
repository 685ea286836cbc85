"""pass@1 while a stage trains: measured, told, and without a trace in what is trained."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.config.validation import OfflineValidationConfig, ValidationConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.policy import load_policy, save_policy
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.pretrain.stage import PretrainStage
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.training.validation import policy_validation
from reasoning_lab.types import Split, UserError
from tests.support.rl import TableTracker
from tests.support.stages import COINS, STAGES, STEPS, optimization, trained
from tests.support.vllm_stand_in import StandIn, running_stand_in


@pytest.fixture(scope="module")
def dropping(context: StageContext, tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    """A context whose policy draws random numbers while it trains."""
    folder = tmp_path_factory.mktemp("dropping")
    policy, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    policy.config.attention_dropout = policy.config.resid_pdrop = 0.3
    save_policy(policy, tokenizer, folder)
    return replace(context, inputs={**context.inputs, "policy": Policy(folder)})


@pytest.mark.parametrize("name", ["sft", "midtrain", "dpo", "rl"])
def test_validation_changes_nothing_that_is_trained(
    name: str, dropping: StageContext, tmp_path: Path
) -> None:
    config: Any = STAGES[name]
    watched = replace(config, validation=COINS)
    if name == "sft":
        watched = replace(watched, validate_every_steps=2)
    trained(name, dropping, tmp_path / "plain", config)
    trained(name, dropping, tmp_path / "watched", watched)
    plain, validated = tmp_path / "plain" / "out", tmp_path / "watched" / "out"
    content = (plain / "model.safetensors").read_bytes()
    assert content == (validated / "model.safetensors").read_bytes()
    before, after = read_history(plain), read_history(validated)
    assert {key: after[key] for key in before} == before
    steps = [0, 2, 4] if name == "rl" else [0, 2, 4, 6]
    assert list(after["val/pass@1"]) == steps


def test_the_policy_in_training_is_what_is_measured(context: StageContext, tmp_path: Path) -> None:
    """After the last step it is the policy of the artifact; its completions are a table."""
    tracker, ledger = TableTracker(), Ledger()
    config = replace(STAGES["sft"], validation=replace(COINS, every_steps=4, table_rollouts=7))
    watched = replace(context, tracker=tracker)
    trained("sft", watched, tmp_path, config, ledger)
    values = read_history(tmp_path / "out")["val/pass@1"]
    assert list(values) == [0, 4, STEPS]
    problems = list(context.source.problems(Split.VALIDATION, [1], 5, 0))
    for folder, step in ((context.inputs["policy"].path, 0), (tmp_path / "out", STEPS)):
        loaded = load_policy(folder, "float32")
        groups = (
            replace(context, stage=config)
            .sampler(*loaded)
            .groups(problems, 4, Sampling(1.0, 0.95, 12), f"3/{step}/validation")
        )
        assert values[step] == sum(group.pass_rate for group in groups) / 5
        rollouts, columns = tracker.tables[0 if step == 0 else -1]
        expected = [rollout for group in groups for rollout in group.rollouts][:7]
        assert [(one.completion.text, one.verdict) for one in rollouts] == [
            (one.completion.text, one.verdict) for one in expected
        ]
        assert columns == {"step": [step] * 7}
    assert ledger.as_json()["validation_problems"]["in"] == 5


def test_validation_loss_of_sft_is_that_of_the_corpus_s_validation_rollouts(
    context: StageContext, tmp_path: Path
) -> None:
    """At the stage's levels; other ones are counted."""
    corpus = Corpus(tmp_path / "corpus")
    corpus.path.mkdir()
    accepted = read_rollouts(context.inputs["corpus"].path / "accepted.parquet")
    write_rollouts(corpus.accepted_file, accepted)
    at_two = [replace(one, problem=replace(one.problem, level=2)) for one in accepted[:3]]
    write_rollouts(corpus.validation_file, [*accepted[:10], *at_two])
    ledger = Ledger()
    config: Any = replace(STAGES["sft"], validate_every_steps=2)  # type: ignore[call-arg]
    mixed = replace(context, inputs={**context.inputs, "corpus": corpus})
    trained("sft", mixed, tmp_path / "mixed", config, ledger)
    trained("sft", context, tmp_path / "plain", config)
    losses = [read_history(tmp_path / which / "out")["val/loss"] for which in ("mixed", "plain")]
    assert list(losses[0]) == [1, 3, 5]
    assert losses[0] == losses[1]
    assert ledger.as_json()["validation_rollouts"]["dropped"] == {"other_level": 3}
    write_rollouts(corpus.validation_file, at_two)
    with pytest.raises(UserError, match=r"validate_every_steps: .* levels \[1\]; it has .* \[2\]"):
        trained("sft", mixed, tmp_path / "none", config)
    # As for a corpus with levels by pass rate, which validation rollouts have none of.
    config = replace(config, validation=replace(config.validation, levels=[2]))
    trained("sft", mixed, tmp_path / "named", config)
    assert list(read_history(tmp_path / "named" / "out")["val/loss"]) == [1, 3, 5]


@pytest.mark.parametrize("name", ["midtrain", "sft"])
def test_training_that_is_shorter_than_the_rhythm_is_validated_when_it_ends(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    """As with `length: 1 epoch` of a small corpus."""
    config: Any = replace(STAGES[name], validate_every_steps=50)  # type: ignore[call-arg]
    trained(name, context, tmp_path / "rare", config)
    often: Any = replace(config, validate_every_steps=STEPS)
    trained(name, context, tmp_path / "once", often)
    rare, once = (read_history(tmp_path / which / "out")["val/loss"] for which in ("rare", "once"))
    assert rare == once
    assert list(once) == [STEPS - 1]


def test_problems_are_identity_where_they_are_validated() -> None:
    for name in ("sft", "midtrain", "dpo"):
        config = STAGES[name]
        assert "data" not in config.groups_read()
        assert "data" in replace(config, validation=COINS).groups_read()
    drawing = PretrainStage(
        steps_frac=0.5, steps_per_row=2, problems=ProblemsConfig([3], 9), validation=COINS
    )
    assert drawing.groups_read() == ("model", "data")


def test_validation_draws_its_problems_at_the_stage_s_levels() -> None:
    counted = OfflineValidationConfig(count=7, max_new_tokens=9)
    sft = replace(STAGES["sft"], levels=[2, 3], validation=counted)  # type: ignore[call-arg]
    (draw,) = sft.problem_draws("stages.sft")
    assert (draw.key, draw.split, draw.levels, draw.count) == (
        "stages.sft.validation.count",
        Split.VALIDATION,
        [2, 3],
        7,
    )
    own = replace(sft, validation=replace(counted, levels=[1]))
    assert [draw.levels for draw in own.problem_draws("stages.sft")] == [[1]]
    # Six steps: before the first, after each third and the last.
    every_third = replace(sft, validation=replace(counted, every_steps=3, samples=2))
    written = every_third.workload().written
    assert written is not None
    assert (written.rows, written.tokens) == (3 * 7 * 2, 9)


def test_a_server_validates_the_policy_as_the_process_itself_would(
    context: StageContext, tmp_path: Path
) -> None:
    config: Any = replace(STAGES["sft"], validation=COINS)
    trained("sft", context, tmp_path / "here", config)
    served_config = replace(config, validation=replace(COINS, rollout_engine="vllm"))
    with running_stand_in(StandIn(context.inputs["policy"].path)) as server:
        engine = SamplingHardwareConfig(rollout_urls=[server.url])
        served = replace(context, hardware=replace(context.hardware, sampling=engine))
        trained("sft", served, tmp_path / "there", served_config)
        pushed = [Path(body["kwargs"]["weights_path"]) for body in server.bodies["/collective_rpc"]]
    here, there = (read_history(tmp_path / which / "out") for which in ("here", "there"))
    assert there["val/pass@1"] == here["val/pass@1"]
    assert [int(path.name) for path in pushed] == list(there["val/pass@1"])


def test_vllm_validates_only_what_it_can_sample() -> None:
    watched = OfflineValidationConfig(count=3, max_new_tokens=9, rollout_engine="vllm")
    stage = replace(STAGES["dpo"], validation=watched)
    limits = SamplingHardwareConfig(rollout_urls=["http://one:1"], sleep=True)
    with pytest.raises(UserError, match=r"hardware\.sampling\.sleep: .* leave out rollout_urls"):
        stage.check("stages.dpo", HardwareConfig(sampling=limits))
    unwatched = replace(stage, validation=replace(watched, count=0))
    assert (stage.workload().engine, unwatched.workload().engine) == ("vllm", "hf")
    unwatched.check("stages.dpo", HardwareConfig(sampling=limits))


@dataclass
class OwnStage(TrainingStage):
    """As a user writes one, who knows nothing of engines."""

    name = "own"
    consumes = (Policy,)
    produces = Policy


def test_a_stage_of_the_user_s_own_is_validated_by_transformers(context: StageContext) -> None:
    stage = OwnStage(
        optimization=optimization(),
        validation=ValidationConfig(count=2, max_new_tokens=4, levels=[1]),
    )
    policy, tokenizer = load_policy(context.inputs["policy"].path, "float32")
    assert len(policy_validation(replace(context, stage=stage), policy, tokenizer)) == 1
    assert stage.workload().engine == "hf"


def test_a_training_that_fails_gives_its_server_back(context: StageContext, tmp_path: Path) -> None:
    class FullDisk(TableTracker):
        def log_rollouts(self, *arguments: Any, **options: Any) -> None:
            raise OSError("no space left")

    config: Any = replace(STAGES["sft"], validation=replace(COINS, rollout_engine="vllm"))
    with running_stand_in(StandIn(context.inputs["policy"].path)) as server:
        engine = SamplingHardwareConfig(rollout_urls=[server.url])
        hardware = replace(context.hardware, sampling=engine)
        failing = replace(context, hardware=hardware, tracker=FullDisk())
        with pytest.raises(OSError, match="no space left") as failure:
            trained("sft", failing, tmp_path, config)
        # The traceback keeps what holds the lock alive, so that only closing it helps.
        assert failure.tb is not None
        name = re.sub(r"[^0-9A-Za-z]+", "-", server.url)
        with FileLock(tmp_path / f"{name}.lock", timeout=0):
            pass
