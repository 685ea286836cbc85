"""`domain=NAME`: problems, teacher and benchmark at once, each replaceable, with every recipe."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.commands.compose import compose
from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.config import HubConfig, MixtureConfig, ReasoningGymConfig
from reasoning_lab.data.teachers.config import ProceduralTeacherConfig, RecordedTeacherConfig
from reasoning_lab.sampling.config import ModelTeacherConfig
from tests.support.composition import composed_config, models, sentence_of

DOMAINS = sorted(path.stem for path in (CONF / "domain").glob("*.yaml"))
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
# With and without a stage that has a teacher; other recipes take Hydra longer.
SHORT = ("distill", "evaluate")
# What a recipe that starts from a checkpoint cannot know by itself.
GIVEN = {name: ["model.path=some/model"] for name in ("evaluate", "own", "paper")}


def check(domain: str, recipe: str) -> None:
    config = composed_config(f"domain={domain}", f"recipe={recipe}", *GIVEN.get(recipe, []))
    if recipe == "own" and OmegaConf.get_type(config.data) in (ReasoningGymConfig, MixtureConfig):
        return  # Nothing says how many problems these have, and the recipe asks for all.
    for model in models().values():
        if model.path is None and recipe in GIVEN:
            continue
        config.model = model
        composed = compose(config)
        assert composed.root.benchmarks
        assert ("distill" in composed.root.stages) == (recipe != "evaluate")


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("recipe", SHORT)
def test_a_domain_composes_with_every_model(domain: str, recipe: str) -> None:
    check(domain, recipe)


@pytest.mark.long
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in SHORT])
def test_a_domain_composes_with_every_recipe(domain: str, recipe: str) -> None:
    check(domain, recipe)


def parts(*overrides: str) -> tuple[type[Any], type[Any], list[str]]:
    """The classes of the data and of the teacher, and the benchmarks."""
    config: Any = composed_config(*overrides)
    options = (config.data, config.stages.distill.teacher)
    data, teacher = (OmegaConf.get_type(one) for one in options)
    assert data is not None
    assert teacher is not None
    return data, teacher, list(config.benchmarks)


GENERATED = (ReasoningGymConfig, ProceduralTeacherConfig, ["heldout"])
PUBLISHED = (HubConfig, RecordedTeacherConfig, ["aime24", "math500"])


@pytest.mark.parametrize(
    ("recipe", "domain", "expected"),
    [
        ("distill", "mathematics", PUBLISHED),
        ("own", "mathematics", PUBLISHED),
        ("paper", "arithmetic", GENERATED),
    ],
)
def test_a_domain_comes_before_what_the_recipe_chooses(
    recipe: str, domain: str, expected: tuple[type[Any], type[Any], list[str]]
) -> None:
    assert parts(f"recipe={recipe}", f"domain={domain}") == expected


def test_each_part_of_a_domain_can_be_replaced() -> None:
    teacher = "teacher@stages.distill.teacher=model"
    words = ("recipe=distill", "domain=arithmetic", "data=gsm8k", "benchmark=[math500]", teacher)
    assert parts(*words) == (HubConfig, ModelTeacherConfig, ["math500"])


def test_a_mixture_of_domains_has_sources_to_weigh_to_leave_out_and_to_add() -> None:
    config: Any = composed_config("recipe=distill", "domain=mixed")
    assert OmegaConf.get_type(config.data) is MixtureConfig
    shares = {"arithmetic": 1, "logic": 1, "strings": 1, "graphs": 1}
    assert config.data.weights == shares
    assert {one.domain for one in config.data.sources.values()} == {
        *("mathematics", "logic", "strings", "graphs")
    }
    words = ("data.weights.logic=2", "data.weights.graphs=0")
    added = ("+data@data.sources.words=gym_words", "data.weights.words=3")
    data: Any = composed_config("recipe=distill", "domain=mixed", *words, *added).data
    assert data.weights == {**shares, "logic": 2, "graphs": 0, "words": 3}
    without = ("~data@data.sources.strings", "~data.weights.strings")
    data = compose(composed_config("recipe=distill", "domain=mixed", *without)).root.data
    assert data.sources.keys() == data.weights.keys() == {"arithmetic", "logic", "graphs"}


def test_an_experiment_that_names_its_problems_keeps_them() -> None:
    data, _, benchmarks = parts("domain=arithmetic", "experiment=gsm8k")
    assert (data, benchmarks) == (HubConfig, ["gsm8k"])


def test_a_domain_that_is_not_there_is_refused_with_those_that_are() -> None:
    sentence = sentence_of("domain=arithmetics")
    assert sentence.startswith("domain=arithmetics")
    assert "arithmetic" in sentence.partition(";")[2]
