"""Every mistake in a config is one sentence, before anything runs."""

from pathlib import Path

import pytest

from reasoning_lab.config.folder import CONF
from reasoning_lab.types import UserError
from tests.conftest import Compose
from tests.support.composition import BARE, sentence_of

GENERATED = "reasoning_lab.data.sources.config.ReasoningGymConfig"
GENERATED_OPTIONS = "{families: {gcd: {1: {}}}, test_frac: 0.1, validation_frac: 0.1}"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
STAGE_OPTIONS = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sead=1", ["sead=1", "no key 'sead'", "did you mean 'seed'?"]),
        ("modle=tiny", ["modle=tiny", "did you mean 'model'?"]),
        ("stages.sft.cuont=3", ["stages.sft.cuont=3", "in stages.sft", "did you mean 'count'?"]),
        ("stages.stf.count=3", ["no key 'stf' in stages", "did you mean 'sft'?"]),
        ("model.zzz=3", ["no key 'zzz' in model", "choose among path, revision, architecture"]),
        ("+model.pth=3", ["model.pth=3", "no such key", "path, revision"]),
        ("model=huge", ["model=huge", "no option 'huge'", "tiny"]),
        ("benchmark=heldut", ["no option 'heldut'", "did you mean 'heldout'?"]),
        ("stage@stages.sft=sfx", ["stage=sfx", "did you mean 'sft'?"]),
        ("stage@stages.sfz=sft", ["stage@stages.sfz=sft", "did you mean 'stage@stages.sft'?"]),
        ("stages.sft.count=abc", ["stages.sft.count=abc", "is not an integer"]),
        ("stages.sft.count=1.5", ["stages.sft.count=1.5", "is not an integer"]),
        (
            "stages.rl.policy_loss.clip_low=abc",
            ["stages.rl.policy_loss.clip_low=abc", "is not a number"],
        ),
        ("stages.sft.levels=2", ["stages.sft.levels=2", "write [2]"]),
        ("stages.sft.levels=[a]", ["stages.sft.levels[0]=a", "is not an integer"]),
        ("stages.sft.optimization=3", ["is not a mapping", "keys below stages.sft.optimization"]),
        ("model.adapter={rank:4}", ["model.adapter: it is empty", "model.adapter.KEY=VALUE"]),
        ("hardware.slurm={nodes:2}", ["hardware.slurm: it is empty", "option that fills it"]),
        ("stages.sft.count=null", ["stages.sft.count=null", "give a value"]),
        ("stages.sft.count=???", ["stages.sft.count", "add stages.sft.count=VALUE"]),
        ("seed=${nothing}", ["seed", "'nothing'"]),
        ("seed=[", ["'seed=['", "write key=value"]),
        ("hardware=3", ["config group", "by name"]),
        ("+seed=1", ["+seed", "write seed=VALUE without the +"]),
        ("~stages.foo", ["stages.foo"]),
        ("data.families.gcd.1.max_value=9", ["keys of data.families.gcd are numbers"]),
        ("~stages.rl.signal", ["~stages.rl.signal", "give it a value"]),
        ("seed=-1", ["seed", "give 0 or more"]),
        ("seed=4294967296", ["seed", "give 4294967295 or less"]),
        ("stages.extra=3", ["stages.extra=3", "no key 'extra' in stages"]),
        ("+stages.extra.count=3", ["stages.extra", "+stage@stages.extra=sft"]),
        ("++stages.extra={count: 3}", ["stages.extra", "+stage@stages.extra=sft"]),
        ("stages.sft=null", ["stages.sft", "~stages.sft to leave it out"]),
        ("stages=3", ["stages=3", "not a mapping", "keys below stages"]),
        ("+stages.sft.cuont=3", ["stages.sft.cuont=3", "no such key", "levels, count"]),
        ("stages.rl.advantage=ppo", ["stages.rl.advantage", "'ppo'", "grpo, dr_grpo, rloo"]),
        (
            "++stages.rl.rewards.correctness._target_=os.system",
            ["rewards.correctness", "os.system"],
        ),
        ("+stages.rl.rewards.x={_target_: reasoning_lab.rewards.shortness}", ["there is no"]),
        ("+stages.rl.rewards.x={_target_: reasoning_lab.rewards.overlong}", ["soft_tokens"]),
        (
            "stages.rl.rollout_engine=vllm",
            ["stages.rl.rollout_engine", "reasoning-lab[vllm]", "hardware.sampling.rollout_urls"],
        ),
        ("stages.prefer.rollout_engine=vllm", ["stages.prefer.rollout_engine", "[vllm]"]),
        ("stages.dpo.loss=simpo", ["stages.dpo.loss", "'simpo'", "sigmoid_norm"]),
        ("stages.sft.optimization.length=0 steps", ["optimization.length", "above 0 of steps"]),
        ("stages.sft.optimization.length=500", ["optimization.length", "'500'", "500 steps"]),
        ("stages.sft.optimization.steps=5", ["now called 'length'", "stages.sft.optimization"]),
        ("data=jsonl", ["data.path", "add data.path=VALUE"]),
        ("stages.prefer.pairing=longest", ["stages.prefer.pairing", "random or length_matched"]),
        ("hardware.engine.sleep=true", ["'engine' is now called 'sampling'", "hardware.sampling"]),
        ("hardware.device=h100", ["'device' is now called 'gpu_model'"]),
        (
            "stages.rl.backfill_rounds=2",
            ["'backfill_rounds' is now called 'dynamic_sampling_rounds'"],
        ),
        ("stages.rl.engine=hf", ["now called 'rollout_engine'", "stages.rl.rollout_engine"]),
        ("tracker.mode=loud", ["tracker.mode", "'loud'", "auto, online, offline or disabled"]),
    ],
)
def test_mistake_is_one_clear_sentence(override: str, parts: list[str]) -> None:
    sentence = sentence_of(override, *([] if "stage" in override else [BARE]))
    assert "\n" not in sentence
    assert "object_type" not in sentence
    for part in parts:
        assert part in sentence, sentence


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stages: {sft: {cuont: 3}}", ["experiment/mine.yaml", "stages.sft.cuont", "'count'"]),
        (
            "stages: {distill: {rollouts: a}}",
            ["experiment/mine.yaml", "stages.distill.rollouts=a", "integer"],
        ),
        (
            "stages: {mine: {count: 3}}",
            ["experiment/mine.yaml: stages.mine: a stage", "+stage@stages.mine=sft"],
        ),
        ("stages: {mine: {after: sft}}", ["stages.mine: a stage", "+stage@stages.mine=sft"]),
        (
            "data: {_target_: my_lab.Tickets}",
            ["experiment/mine.yaml: data._target_", "[{/schema/data@_here_: custom}]", "options"],
        ),
        ("defaults: [{override /modle: tiny}]", ["experiment/mine.yaml", "did you mean 'model'?"]),
    ],
)
def test_mistake_in_a_file_names_the_file(text: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    sentence = sentence_of(search, "experiment=mine")
    for part in parts:
        assert part in sentence, sentence


def test_data_file_that_does_not_exist_is_named(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path: there is no file '.*missing\.jsonl'"):
        composed("data=jsonl", f"data.path={tmp_path / 'missing.jsonl'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "hardware.micro_batch_size=5",
            r"size=5 does not divide stages\.sft\.optimization",
        ),
        (
            "hardware.micro_batch_size=0",
            "micro_batch_size: 0 is too small; give 1 or more",
        ),
        (
            "stages.rl.optimization.checkpoint_every_steps=0",
            "every_steps: 0 is too small",
        ),
        (
            "stages.sft.optimization.schedule.warmup_frac=1.5",
            "warmup_frac: 1.5 is too large; give 1.0 or",
        ),
        ("stages.dpo.beta=-1", r"stages\.dpo\.beta: -1\.0 is too small"),
        ("benchmarks.heldout.sampling.top_p=2", "top_p: 2.0 is too large"),
        ("stages.pretrain.steps_frac=1", "steps_frac: 1.0 is too large"),
        ("hardware.sampling.sleep=true", "vLLM has no sleep mode on a CPU"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_does(
    override: str, message: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=message):
        composed(override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hardware.sampling.rollout_urls=[10.0.0.1:8000]"], "'10.0.0.1:8000' is not a server's"),
        (
            [
                "hardware.sampling.rollout_urls=[http://a]",
                *("hardware.sampling.sleep=true", "hardware.accelerator=gpu"),
            ],
            "hardware.sampling.sleep: only vLLM in the trainer's own process",
        ),
    ],
)
def test_what_servers_of_rollouts_cannot_is_refused(
    overrides: list[str], message: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=message):
        composed("stages.rl.rollout_engine=vllm", *overrides)
