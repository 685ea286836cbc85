"""What the command answers to mistakes: one sentence whose remedy works when it is copied."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from reasoning_lab.config.hydra_errors import hydra_quoted, one_sentence
from reasoning_lab.types import UserError
from tests.conftest import lab_here
from tests.support.composition import composed_recipe

NAMES = [
    "a=b.jsonl",
    "a(b).jsonl",
    "a[b].jsonl",
    "a{b}.jsonl",
    "a#b.jsonl",
    "a'b.jsonl",
    'a"b.jsonl',
    "größe.jsonl",
    "数据.jsonl",
    "~/x.jsonl",
    "a&b;c.jsonl",
    'a\\"=b.jsonl',
    "what? no!.jsonl",
]


def parsed(override: str) -> str:
    return str(OverridesParser.create().parse_override(override).value())


@pytest.mark.parametrize("name", NAMES)
def test_remedy_for_a_path_works_when_it_is_pasted_into_a_shell(name: str) -> None:
    with pytest.raises(OverrideParseException) as refused:
        OverridesParser.create().parse_overrides([f"data.path={name}"])
    sentence = one_sentence(refused.value)
    (word,) = shlex.split(sentence.rpartition("; write ")[2])
    assert parsed(word) == name


@pytest.mark.parametrize("value", [*NAMES, "a\\", "\\\\", '"', "plain", "a,b", ""])
def test_quotes_keep_every_character(value: str) -> None:
    assert parsed(f"key={hydra_quoted(value)}") == value


def answer(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    capsys.readouterr()
    assert lab_here(*words, cwd=folder) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_comma_is_a_sweep_or_wants_quotes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = answer(capsys, tmp_path, "data=jsonl", "data.path=a,b.jsonl")
    assert "add -m" in sentence
    (word,) = shlex.split(re.findall(r"or write (.+) for one", sentence)[0])
    assert parsed(word) == "a,b.jsonl"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["evalute", "model=x"], ["evalute", "did you mean 'evaluate'?"]),
        (["seed=1", "plan"], ["a subcommand comes first", "reasoning-lab plan"]),
        (["seed"], ["no such subcommand", "key=value"]),
        (["plan", "smoke"], ["smoke: plan takes key=value", "reasoning-lab plan --help"]),
        (["experiment=null"], ["given null", "leave it out"]),
        (
            ["plan", "+stages.sft.optimization.optimizer.options.lr=1e-3"],
            [
                "stages.sft.optimization.optimizer.options.lr",
                "stages.sft.optimization.learning_rate",
            ],
        ),
        (
            ["plan", "+stages.sft.optimization.optimizer.lr=1e-3"],
            ["stages.sft.optimization.optimizer.lr=0.001", "there is no such key"],
        ),
        (
            ["plan", "stages.rl.domains.logic.group_size=4"],
            ["logic: it is no key yet", "MAPPING={logic: {KEY: value}}"],
        ),
        (
            ["plan", "stages.rl.domains={logic: {group_size: 1}}"],
            ["stages.rl.domains.logic.group_size: 1 is too small"],
        ),
    ],
)
def test_mistakes_are_told_with_their_remedy(
    words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = answer(capsys, tmp_path, *words)
    for part in parts:
        assert part in sentence


def test_version_is_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lab_here("--version", cwd=tmp_path) == 0
    assert re.fullmatch(r"reasoning-lab \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_completion_knows_subcommands_and_prints_no_error(tmp_path: Path) -> None:
    def complete(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "reasoning_lab", "-sc", "query=bash"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "COMP_LINE": line},
            check=False,
        )

    done = complete("reasoning-lab plan model=qwen3")
    assert (done.stdout.split(), done.stderr) == (["model=qwen3_0_6b"], "")
    broken = complete("reasoning-lab data.path=ö= x")
    assert (broken.stdout, broken.stderr) == ("", "")


def test_source_of_a_mixture_is_exchanged_by_its_option() -> None:
    recipe = composed_recipe("data=mixture", "data@data.sources.gym=tiny")
    data: Any = recipe.root.data
    assert set(data.sources["gym"].families) == {
        "chain_sum",
        "complex_arithmetic",
        "count_primes",
        "fraction_simplification",
        "gcd",
        "leg_counting",
        "simple_equations",
    }


def test_weight_of_an_added_source_is_set_by_its_name() -> None:
    words = ["data=mixture", "+data@data.sources.math=math"]
    data: Any = composed_recipe(*words, "data.weights.math=2").root.data
    assert data.weights == {"gym": 3.0, "gsm8k": 1.0, "math": 2.0}
    with pytest.raises(UserError, match=r"data\.weights: it names .*, mat, the sources are .*math"):
        composed_recipe(*words, "data.weights.mat=2")


@pytest.mark.parametrize("benchmark", ["heldout", "validation"])
def test_smoke_composes_with_any_benchmark(benchmark: str) -> None:
    recipe = composed_recipe("experiment=smoke", f"benchmark=[{benchmark}]")
    options = recipe.root.benchmarks[benchmark]
    assert (
        options.count,
        options.samples,
        options.sampling.max_new_tokens,
    ) == (21, 1, 32)


def test_evaluated_checkpoint_has_its_own_name() -> None:
    recipe = composed_recipe("recipe=evaluate", "model=smollm2_135m", "benchmark=[math500]")
    assert [node.name for node in recipe.nodes] == ["SmolLM2-135M-Instruct/math500"]
