"""The options of each engine are the arguments of what opens it."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reasoning_lab.config.components import CustomEngine, EngineConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling import openai, vllm
from reasoning_lab.sampling.config import HFEngineConfig, OpenAIEngineConfig, VLLMEngineConfig


@pytest.mark.parametrize(
    ("options", "opened_by"),
    [
        (VLLMEngineConfig("m"), vllm.VLLMEngine),
        (OpenAIEngineConfig("m"), openai.OpenAIEngine),
    ],
)
def test_an_engine_takes_its_options_and_hardware(
    options: EngineConfig, opened_by: Callable[..., Any]
) -> None:
    inspect.signature(opened_by).bind(**options.arguments(), hardware=HardwareConfig())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (HFEngineConfig("m", "r"), HFEngineConfig("policy", None, "bfloat16")),
        (
            VLLMEngineConfig("m", "r", "half", 9),
            VLLMEngineConfig("policy", None, "bfloat16", 9),
        ),
        (OpenAIEngineConfig("m", {"top_k": 2}), OpenAIEngineConfig("policy", {"top_k": 2})),
        (CustomEngine("m", "x.y", {"a": 1}), CustomEngine("policy", "x.y", {"a": 1})),
    ],
)
def test_an_engine_is_given_a_policy(options: EngineConfig, expected: EngineConfig) -> None:
    before = replace(options)
    assert options.for_policy("policy", None, "bfloat16") == expected
    assert options == before
