"""On-policy distillation: a teacher that grades tokens, alone and beside rewards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.run import opened
from reasoning_lab.config.frozen_policy import FrozenPolicyConfig
from reasoning_lab.config.policy_loss import CISPOConfig, ReinforceConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl.graders import FrozenPolicy, Teacher
from reasoning_lab.stages.rl.options import ImportanceConfig, TemperatureConfig
from reasoning_lab.stages.rl.stage import OPDStage
from reasoning_lab.stages.rl.update import Objective
from reasoning_lab.system.ranks import Peers
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Completion, Rollout, Split, UserError, Verdict
from tests.support.composition import composed_config, composed_recipe, sentence_of
from tests.support.rl import TableTracker, jittered, micro_batches, rewarded_group, word_tokenizer
from tests.support.stages import learn_golds, optimization, run_stage
from tests.support.tensors import gradient_of
from tests.support.tiny import tiny_model
from tests.support.trl_losses import trl_opd
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

OPD = "+stage@stages.opd=opd"
TEMPERATURE = 0.8


def by_trl(policy: Any, teacher: Any, groups: Any) -> Tensor:
    """TRL's loss of these rollouts, each of which both policies read by itself."""
    rollouts = [record.rollout for group in groups for record in group.rollouts]
    tokenizer, most = word_tokenizer(), 9
    rows = []
    for rollout in rollouts:
        prompt = prompt_tokens(tokenizer, [rollout.problem.model_prompt])[0]
        completion = torch.tensor(rollout.completion.token_ids)
        ids = torch.cat([torch.tensor(prompt), completion])[None]
        ours, theirs = (
            model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            for model in (policy, teacher)
        )
        graded = (theirs.detach() / TEMPERATURE).log_softmax(-1)
        missing = most - len(completion)
        rows.append(
            (
                pad(ours, (0, 0, 0, missing)),
                pad(completion, (0, missing)),
                torch.arange(most) < len(completion),
                pad(graded.gather(1, completion[:, None])[:, 0], (0, missing)),
            )
        )
    logits, tokens, mask, teacher_logprobs = (torch.stack(part) for part in zip(*rows, strict=True))
    return trl_opd(logits, tokens, mask, teacher_logprobs, temperature=TEMPERATURE)


@pytest.mark.parametrize("rows", [None, 2])
def test_loss_and_gradient_of_an_update_are_trls(rows: int | None) -> None:
    policy, teacher = (tiny_model("qwen3", 20, 0, 1, seed=seed) for seed in (4, 5))
    groups = [jittered(rewarded_group(1.0, 0.0, -1.0), 1), jittered(rewarded_group(0.3), 2)]
    expected = by_trl(policy, teacher, groups)
    expected.backward()
    theirs = [gradient_of(parameter).clone() for parameter in policy.parameters()]
    config = OPDStage(
        max_new_tokens=9, policy_loss=ReinforceConfig(), importance=ImportanceConfig("none")
    )
    batches = micro_batches(groups, config, rows)
    policy.zero_grad()
    objective = Objective(
        policy,
        batches,
        config,
        config.policy_loss.build("policy_loss"),
        TEMPERATURE,
        Peers(),
        None,
        Teacher(FrozenPolicy(teacher), 0.0),
    )
    loss = torch.stack([objective.loss(number) for number in range(len(batches))]).sum()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    for parameter, gradient in zip(policy.parameters(), theirs, strict=True):
        torch.testing.assert_close(gradient_of(parameter), gradient, atol=1e-5, rtol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in theirs) > 1e-3
    metrics = objective.tally.values(1)
    assert 0 < metrics["train/positive_advantage_frac"] < 1
    assert metrics["train/kl_to_teacher"] != 0


def test_rewards_are_added_with_their_weight() -> None:
    """REINFORCE is linear in its advantages."""
    groups = [jittered(rewarded_group(1.0, 0.0, -1.0), 1)]
    config = OPDStage(
        max_new_tokens=9, policy_loss=ReinforceConfig(), importance=ImportanceConfig("none")
    )
    policy, other = (tiny_model("qwen3", 20, 0, 1, seed=seed) for seed in (4, 5))
    batches = micro_batches(groups, config)
    policy_loss = config.policy_loss.build("policy_loss")

    def loss(teacher: Teacher | None) -> float:
        objective = Objective(
            policy, batches, config, policy_loss, TEMPERATURE, Peers(), None, teacher
        )
        return objective.loss(0).item()

    rewards, alone = loss(None), loss(Teacher(FrozenPolicy(other), 0.0))
    assert abs(rewards) > 1e-2 < abs(alone)
    mixed = loss(Teacher(FrozenPolicy(other), 0.7))
    assert mixed == pytest.approx(alone + 0.7 * rewards, rel=1e-4)


@pytest.fixture(scope="module")
def heads(context: StageContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that says 1 of every coin, where the policy of the context says 0 as often."""
    tosser = context.inputs[Policy.kind]
    assert isinstance(tosser, Policy)
    policy, tokenizer = context.load_policy(tosser)
    nothing = Completion([], "")
    rollouts = [
        Rollout(replace(problem, gold="1"), nothing, None, Verdict.CORRECT, "t")
        for problem in context.source.problems(Split.TRAIN, [1], 60, 0)
    ]
    folder = tmp_path_factory.mktemp("heads")
    out = folder / "out"
    out.mkdir()
    places: dict[str, Any] = {"out_dir": out, "work_dir": folder / "work"}
    learn_golds(policy, tokenizer, rollouts, replace(context, **places), 12)
    return out


@pytest.mark.long
def test_the_policy_becomes_its_teacher_without_a_reward(
    heads: Path, context: StageContext, tmp_path: Path
) -> None:
    """Half of the answers are right throughout, and each rollout is a group of its own."""
    tracker = TableTracker()
    config = OPDStage(
        problems=ProblemsConfig([1], 40),
        teacher=FrozenPolicyConfig(path=str(heads)),
        group_size=1,
        max_new_tokens=12,
        policy_loss=CISPOConfig(),
        temperature=TemperatureConfig(end=1.0),
        optimization=optimization(learning_rate=6e-3, batch_size=16, length="24 steps"),
        table_every_steps=1,
    )
    (tmp_path / "out").mkdir()
    places: dict[str, Any] = {"out_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    run_stage(config, replace(context, tracker=tracker, **places))
    steps = [step for _, step in sorted(tracker.steps.items())]
    divergences = [step["train/kl_to_teacher"] for step in steps]
    assert fmean(divergences[:3]) > 0.2
    assert abs(fmean(divergences[-6:])) < 0.3 * fmean(divergences[:3])
    assert [step["rollout/groups_trained"] for step in steps] == [16.0] * 24
    assert 0 < steps[0]["train/positive_advantage_frac"] < 1
    assert {"rollout/reward_mean", "rollout/entropy"} <= steps[0].keys()
    answers = [rollout.answer for rollouts, _ in tracker.tables for rollout in rollouts]
    assert len(answers) == 4 * 24
    assert answers[:24].count("1") < 0.7 * 24
    assert answers[-24:].count("1") > 0.8 * 24


def test_it_composes_is_repeated_and_is_removed() -> None:
    words = (OPD, "stages.opd.teacher.stage=sft")
    again = ("+stage@stages.opd2=opd", "stages.opd2.teacher.stage=opd", "stages.opd2.after=opd")
    nodes = {node.name: node for node in composed_recipe(*words, *again).nodes}
    assert {kind: maker.name for kind, maker in nodes["opd"].inputs.items()} == {
        "policy": "rl",
        "teacher": "sft",
    }
    assert {kind: maker.name for kind, maker in nodes["opd2"].inputs.items()} == {
        "policy": "opd",
        "teacher": "opd",
    }
    plain = [node.fingerprint for node in composed_recipe().nodes]
    assert [node.fingerprint for node in composed_recipe(*words, "ablate=opd").nodes] == plain
    assert "opd" not in composed_config(OPD, "~stages.opd").stages


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            (),
            "stages.opd.teacher: neither stage nor path names a policy; give one of them, as in "
            "stages.opd.teacher.stage=sft for an earlier stage, or stages.opd.teacher.path=FOLDER "
            "for a checkpoint",
        ),
        (
            ("stages.opd.teacher.stage=distill",),
            "stages.opd.teacher.stage: there is no earlier stage 'distill'; choose among pretrain, "
            "midtrain, sft, dpo, rl",
        ),
        (
            ("stages.opd.teacher.stage=sft", "stages.opd.teacher.revision=main"),
            "stages.opd.teacher.revision=main: a stage has no revision, as a checkpoint of the hub "
            "does; leave it out",
        ),
        (
            ("stages.opd.teacher.path=.",),
            "stages.opd.teacher.path=.: there is no readable config.json in it; name the folder of "
            "a Hugging Face checkpoint, or a hub id",
        ),
    ],
)
def test_a_mistake_gets_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    assert sentence_of(OPD, *words) == sentence


def test_a_teachers_content_is_identity_wherever_it_lies(tmp_path: Path) -> None:
    def fingerprint(folder: Path, *words: str) -> str:
        recipe = composed_recipe(OPD, f"stages.opd.teacher.path={folder}", *words)
        return {node.name: node for node in recipe.nodes}["opd"].fingerprint

    one, copy, other = (tmp_path / name for name in ("one", "copy", "other"))
    one.mkdir()
    (one / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    shutil.copytree(one, copy)
    shutil.copytree(one, other)
    (other / "model.safetensors").write_bytes(b"weights")
    assert fingerprint(one) == fingerprint(copy) != fingerprint(other)
    assert fingerprint(one, "stages.opd.teacher.dtype=bfloat16") != fingerprint(one)


def test_a_teacher_of_other_tokens_is_refused_before_anything_trains(tmp_path: Path) -> None:
    tokenizer = twin_tokenizer(TWINS["qwen3"], ["What is 3 + 4?"] * 4)
    for name in ("student", "teacher"):
        if name == "teacher":
            tokenizer.add_tokens(["<think>", "</think>", "<aside>"])
        save_twin(twin_model(TWINS["qwen3"], tokenizer), tokenizer, tmp_path / name)
    words = ("recipe=evaluate", "benchmark=[]", "data=tiny", "model=checkpoint", OPD)
    recipe: Recipe = composed_recipe(
        *words,
        f"model.path={tmp_path / 'student'}",
        f"stages.opd.teacher.path={tmp_path / 'teacher'}",
        f"paths.runs={tmp_path / 'runs'}",
        "stages.opd.problems.count=8",
    )
    refusal = r"^stages\.opd\.teacher\.path=.*teacher: token '<aside>' has the number"
    with pytest.raises(UserError, match=refusal), opened(recipe, tmp_path / "runs" / "one"):
        pass
