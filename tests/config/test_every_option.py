"""Every option of every group with every model.

Round `n` takes the n-th option of each group at once, and each round is composed with every model:
Hydra composes a round once and a model once, as no group says anything of another. Options of
`hardware` are in `test_hardware.py`, recipes and what changes a whole run in `test_recipes.py`.
"""

from itertools import cycle, islice
from pathlib import Path

import pytest

from reasoning_lab.commands.compose import compose
from reasoning_lab.config.folder import CONF
from tests.support.composition import composed_config, models

# Groups whose options need a whole run, which the named files compose with every model.
ELSEWHERE = {
    "test_domains.py": {"domain"},
    "test_hardware.py": {"hardware"},
    "test_recipes.py": {
        "debug",
        "experiment",
        "hparams_search",
        "optimizer",
        "recipe",
        "schedule",
    },
}
# Where an option goes that is no group at the root.
PLACES = {
    "engine": "engine@stages.my_distill.teacher.engine",
    "judge": "+judge@stages.my_distill.judge",
    "policy_loss": "policy_loss@stages.rl.policy_loss",
    "stage": "+stage@stages.my_stage",
    "teacher": "teacher@stages.my_second_distill.teacher",
}
NAMED = "reasoning_lab.data"
# What an option cannot know by itself; the place of its keys stands before the colon.
GIVEN = {
    # A generator or a mixture beside it has no `all`.
    "benchmark=own": ["count=20"],
    "data=custom": [
        f"_target_={NAMED}.sources.config.ReasoningGymConfig",
        "options={families: {gcd: {1: {}}}, test_frac: 0.1, validation_frac: 0.1}",
    ],
    "data=jsonl": ["path=%s"],
    "data=taskset": ["taskset=my_tasks.Sums"],
    "engine=custom": [
        "_target_=reasoning_lab.sampling.openai.OpenAIEngine",
        "options.extra_body={}",
    ],
    "judge=custom": [
        f"_target_={NAMED}.teachers.config.RecordedTeacherConfig",
        'options.answer_pattern="= (.+)"',
    ],
    "judge=model": ["engine.model=some/model"],
    "policy_loss=custom": ["_target_=reasoning_lab.losses.policy_losses.clip"],
    "stage=opd": ["teacher.path=some/model"],
    "teacher=custom": [
        f"_target_={NAMED}.teachers.config.ProceduralTeacherConfig",
        "options={noticed_slip_rate: 0.0, unnoticed_slip_rate: 0.0}",
    ],
    "teacher=model": ["engine.model=some/model"],
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    """Every group that is composed here, nested ones by their path."""
    folders = [path for path in CONF.iterdir() if path.is_dir()]
    names = {path.name for path in folders} - {"hydra", "model", *set().union(*ELSEWHERE.values())}
    nested = {f"model/{path.name}" for path in (CONF / "model").iterdir() if path.is_dir()}
    return sorted(names | nested)


def rounds() -> list[dict[str, str]]:
    """As many as the largest group has options; smaller groups begin again."""
    count = max(len(options(group)) for group in groups())
    taken = {group: list(islice(cycle(options(group)), count)) for group in groups()}
    return [{group: taken[group][number] for group in groups()} for number in range(count)]


def overrides_of(chosen: dict[str, str], problems: Path) -> list[str]:
    words = [
        "+stage@stages.my_distill=distill",
        "teacher@stages.my_distill.teacher=model",
        "stages.my_distill.teacher.engine.model=some/model",
        "+stage@stages.my_second_distill=distill",
    ]
    for group, option in chosen.items():
        place = PLACES.get(group, group)
        words.append(f"{place}=[{option}]" if group == "benchmark" else f"{place}={option}")
        key = f"benchmarks.{option}" if group == "benchmark" else place.rpartition("@")[2]
        for given in GIVEN.get(f"{group}={option}", []):
            words.append(f"{key}.{given.replace('%s', str(problems))}")
    if chosen["benchmark"] == "own":
        # It takes all problems, and a generator does not say how many it has.
        words.append("benchmarks.own.count=5")
    return words


def test_every_group_is_composed_with_every_model() -> None:
    """A new folder of `conf` is composed here unless another file is named for it."""
    for name, names in ELSEWHERE.items():
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        assert all(f'"{group}"' in text for group in names), name
    for group in groups():
        assert {chosen[group] for chosen in rounds()} == set(options(group))


@pytest.mark.parametrize("chosen", rounds(), ids=lambda chosen: chosen["data"])
def test_options_compose_with_every_model(
    chosen: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reasoning_lab.config.components.find_spec", lambda name: name)
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1 + 1?", "gold": "2"}\n')
    config = composed_config(*overrides_of(chosen, problems))
    adapter = config.model.adapter
    for name, model in models().items():
        config.model = model
        # Mixed precision takes no adapter, which `test_compose.py` holds.
        config.model.adapter = None if model.dtype == "mixed" else adapter
        recipe = compose(config)
        assert {"my_distill", "my_second_distill", "my_stage"} <= recipe.root.stages.keys()
        assert list(recipe.root.benchmarks) == [chosen["benchmark"]], name
