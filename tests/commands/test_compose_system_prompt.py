"""The system prompt of a policy, of what answers for it, and of a model that teaches."""

import pytest

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.types import UserError
from tests.conftest import Compose


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.system_prompt=' '"], r"^model\.system_prompt: it is blank"),
        (
            ["model=smollm2_135m", "engine=hf", "engine.system_prompt=x"],
            r"^engine\.system_prompt: .* set model\.system_prompt",
        ),
        (
            [
                "teacher@stages.distill.teacher=model",
                "stages.distill.teacher.engine.model=a/b",
                "engine@stages.distill.teacher.engine=hf",
                "stages.distill.teacher.engine.system_prompt=''",
            ],
            r"^stages\.distill\.teacher\.engine\.system_prompt: it is blank",
        ),
    ],
)
def test_a_system_prompt_out_of_place_is_refused(
    words: list[str], sentence: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=sentence):
        composed(*words)


def test_the_engine_of_benchmarks_has_the_policy_s_system_prompt(composed: Compose) -> None:
    words = ["model=smollm2_135m", "engine=hf", "~stages.pretrain"]
    prompt = "model.system_prompt=Be brief."
    nodes, plain = (composed(*words, *more).nodes for more in ([prompt], []))
    engines = [n.stage.engine for n in nodes if isinstance(n.stage, EvaluateStage)]
    assert {engine.system_prompt for engine in engines if engine} == {"Be brief."}
    # What reads the model is another one; the teacher's corpus is not.
    prints = {n.name: n.fingerprint for n in plain}
    assert {n.name for n in nodes if prints[n.name] == n.fingerprint} == {"distill"}


def test_an_engine_of_ones_own_must_take_the_policy_s_system_prompt(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_VARIABLE, "tests")
    words = ["model=smollm2_135m", "~stages.pretrain", "engine=custom"]
    words += ["engine._target_=tests.support.scripted.ScriptedEngine", "engine.options.answers={}"]
    with pytest.raises(UserError, match=r"^engine\.options: .*'system_prompt'"):
        composed(*words, "model.system_prompt=Be brief.")
