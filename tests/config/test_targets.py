"""Code of the user's own: who may name it, how its rules judge, and when it is identity."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from reasoning_lab.commands.schemas import stage_classes
from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.targets import TRUSTED_VARIABLE, import_trusted, user_code_hashes
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.graph.recipe import Node, RunIdentity, link
from reasoning_lab.graph.stage import Stage
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.stages.dpo.stage import DPOStage
from reasoning_lab.stages.prefer.stage import PreferTeacherStage
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.checkers import check, gold_error
from reasoning_lab.verify.verdicts import UnreadableGoldError
from tests.support.stages import optimization

RULES = """
def as_set(problem, answer):
    if not answer:
        return None
    return set(map(int, answer.split())) == set(map(int, problem.gold.split()))

def faulty(problem, answer):
    raise KeyError(answer)
"""


STAGE = """
from dataclasses import dataclass
from reasoning_lab.stages.sft.stage import SFTStage

@dataclass
class Mine(SFTStage):
    name = "NAME"
    knob: float = 0.5
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A trusted module's file; each test has a module of its own, as imports are remembered."""
    path = tmp_path / (re.sub(r"\W", "_", f"rules_of_{request.node.name}") + ".py")
    path.write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUSTED_VARIABLE, f" {path.stem} ,")
    return path


def problem(rules: Path, gold: str = "1 2", rule: str = "as_set") -> Problem:
    return Problem("Which?", gold, f"{rules.stem}.{rule}", "f")


def test_a_rule_of_ones_own_gives_three_verdicts(rules: Path) -> None:
    answers = {"2 1 1": Verdict.CORRECT, "1 3": Verdict.WRONG}
    answers |= {"": Verdict.UNPARSEABLE, "one two": Verdict.UNPARSEABLE}
    assert {answer: check(problem(rules), answer) for answer in answers} == answers
    with pytest.raises(KeyError):
        check(problem(rules, rule="faulty"), "1")


def test_a_gold_that_its_own_rule_does_not_find_right_is_unreadable(rules: Path) -> None:
    assert gold_error(problem(rules)) is None
    assert "does not accept its own gold 'one'" in str(gold_error(problem(rules, "one")))


def test_a_rule_needs_the_users_trust(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for trusted in ("", "others", rules.stem[:-1]):
        monkeypatch.setenv(TRUSTED_VARIABLE, trusted)
        with pytest.raises(UserError, match=r"unknown checker .* or a function of a package") as e:
            check(problem(rules), "1 2")
        assert not isinstance(e.value, UnreadableGoldError)
    # Ours may be named in a config, but a problem's checker comes with data.
    with pytest.raises(UserError, match="unknown checker"):
        check(Problem("?", "1", "reasoning_lab.system.files.remove", "f"), "1")


def test_code_is_found_wherever_a_config_names_it(rules: Path) -> None:
    name = f"{rules.stem}.as_set"
    hashes = user_code_hashes(
        {"rewards": {"a": {"_target_": name}}, "list": [{"checker": name}], "n": 3}
    )
    assert list(hashes) == [name]
    assert user_code_hashes({"text": f"not {name}", "other": "torch.optim.AdamW"}) == {}


def test_a_trusted_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUSTED_VARIABLE, "no_such_package")
    with pytest.raises(UserError, match=r"REASONING_LAB_TRUSTED: 'no_such_package'.*PYTHONPATH"):
        import_trusted()


def added(rules: Path, text: str = STAGE) -> type[TrainingStage]:
    """The class `Mine` of a trusted module of its own, as a command discovers it."""
    rules.write_text(text.replace("NAME", rules.stem))
    import_trusted()
    stage = stage_classes()[rules.stem]
    assert issubclass(stage, TrainingStage)
    return stage


def test_a_stage_of_ones_own_is_discovered_and_keeps_the_facts_of_its_base(rules: Path) -> None:
    stage = added(rules)
    assert {item.name for item in fields(stage)} > {"knob", "levels", "optimization"}
    assert stage.consumes == (Policy, Corpus)
    assert stage.produces is Policy


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (STAGE.replace("@dataclass\n", ""), r"\.Mine: a stage is a dataclass; write @dataclass"),
        (STAGE.replace("NAME", "dpo"), r"has the name 'dpo' too; give one of them another"),
    ],
)
def test_a_stage_that_hydra_would_misread_is_refused(rules: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        added(rules, text)


def linked(stage: Stage) -> dict[str, Node]:
    stages: dict[str, Stage] = {
        "teach": DistillStage(teacher=TeacherConfig()),
        "mine": stage,
        "pairs": PreferTeacherStage(),
        "last": DPOStage(optimization=optimization()),
    }
    run = RunIdentity({"data": {"path": "x"}, "model": {}}, code_of=user_code_hashes)
    nodes = link(stages, run, has_base=True)
    return {node.name: node for node in nodes}


def test_an_edit_makes_anew_what_names_the_code_and_what_follows(rules: Path) -> None:
    stage = added(rules)(optimization=optimization())
    before = linked(stage)
    assert before["mine"].identity["code"].keys() == {f"{rules.stem}.Mine"}
    assert "code" not in before["teach"].identity
    rules.write_text(rules.read_text() + "\n# Edited.\n")
    after = linked(stage)
    changed = [name for name in before if before[name].fingerprint != after[name].fingerprint]
    assert changed == ["mine", "last"]
