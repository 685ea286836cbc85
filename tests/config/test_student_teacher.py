"""The teacher of problems without a solution: the student's own checkpoint, or another model."""

import pytest

from reasoning_lab.config.components import EngineConfig
from reasoning_lab.data.teachers.config import RecordedOrModelConfig
from reasoning_lab.sampling.config import HFEngineConfig, ModelTeacherConfig, OpenAIEngineConfig
from reasoning_lab.stages.distill.stage import DistillStage
from tests.support.composition import composed_recipe

ENGINE = "stages.distill.teacher.otherwise.engine"
WORDS = ("recipe=distill", "model=smollm2_135m", "data=gsm8k", "stages.distill.problems.count=9")


def engine(*words: str) -> EngineConfig:
    teacher = "teacher@stages.distill.teacher=recorded_or_model"
    stage = composed_recipe(*WORDS, teacher, *words).root.stages["distill"]
    assert isinstance(stage, DistillStage)
    assert isinstance(stage.teacher, RecordedOrModelConfig)
    otherwise = stage.teacher.otherwise
    assert isinstance(otherwise, ModelTeacherConfig)
    return otherwise.engine


def test_the_student_is_asked_as_it_is_trained() -> None:
    asked = engine("model.system_prompt=Be brief.", "model.dtype=mixed")
    assert isinstance(asked, HFEngineConfig)
    assert asked.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert asked.revision == "12fd25f77366fa6b3b4b768ec3050bf629380bac"
    assert (asked.system_prompt, asked.dtype) == ("Be brief.", "bfloat16")


def test_another_model_has_neither_revision_nor_system_prompt_of_the_student() -> None:
    asked = engine(f"{ENGINE}.model=a/b", "model.system_prompt=Be brief.")
    assert isinstance(asked, HFEngineConfig)
    assert (asked.model, asked.revision, asked.system_prompt) == ("a/b", None, None)


@pytest.mark.parametrize("prompt", ["null", "Solve it."])
def test_a_server_may_teach(prompt: str) -> None:
    words = (f"{ENGINE}.model=a/b", f"{ENGINE}.system_prompt={prompt}")
    asked = engine(f"engine@{ENGINE}=openai", *words)
    assert isinstance(asked, OpenAIEngineConfig)
    assert asked.system_prompt == (None if prompt == "null" else prompt)
