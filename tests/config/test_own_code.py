"""Code of the user's own: who may name it, how its rules judge, and when it is identity."""

from pathlib import Path

import pytest

from reasoning_lab.commands.compose import makers
from reasoning_lab.config.schema import StageConfig
from reasoning_lab.config.targets import TRUSTED_VARIABLE, import_trusted, own_code
from reasoning_lab.graph.recipe import Node, link
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.checkers import UnreadableGoldError, check, gold_error

RULES = """
def as_set(problem, answer):
    if not answer:
        return None
    return set(map(int, answer.split())) == set(map(int, problem.gold.split()))

def faulty(problem, answer):
    raise KeyError(answer)
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A trusted module's file; each test has a module of its own, as imports are remembered."""
    path = tmp_path / f"rules_of_{request.node.name.partition('[')[0]}.py"
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


def linked(rules: Path) -> dict[str, Node]:
    def stage(run: str, produces: str, *consumes: str) -> StageConfig:
        return StageConfig(run=run, produces=produces, consumes=list(consumes), reads=["data"])

    stages = {
        "teach": stage("reasoning_lab.stages.teach.module.run", "corpus"),
        "mine": stage(f"{rules.stem}.as_set", "policy", "corpus"),
        "last": stage("reasoning_lab.stages.last.module.run", "policy", "policy"),
    }
    nodes = link(stages, {"data": {"path": "x"}}, 0, True, makers)
    return {node.name: node for node in nodes}


def test_an_edit_makes_anew_what_names_the_code_and_what_follows(rules: Path) -> None:
    before = linked(rules)
    assert "code" not in before["teach"].identity
    assert before["mine"].folder == "as_set"
    assert before["last"].folder == "last"
    rules.write_text(RULES + "\n# Edited.\n")
    after = linked(rules)
    changed = [name for name in before if before[name].fingerprint != after[name].fingerprint]
    assert changed == ["mine", "last"]


def test_code_is_found_wherever_a_config_names_it(rules: Path) -> None:
    name = f"{rules.stem}.as_set"
    found = own_code({"rewards": {"a": {"_target_": name}}, "list": [{"checker": name}], "n": 3})
    assert list(found) == [name]
    assert own_code({"text": f"not {name}", "other": "torch.optim.AdamW"}) == {}


def test_a_trusted_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUSTED_VARIABLE, "no_such_package")
    with pytest.raises(UserError, match=r"REASONING_LAB_TRUSTED: 'no_such_package'.*PYTHONPATH"):
        import_trusted()
