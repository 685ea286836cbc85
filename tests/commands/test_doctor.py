"""The command that looks at a model: what it prints, how it ends, and its page."""

from pathlib import Path

import pytest

from reasoning_lab.commands.doctor import list_page
from reasoning_lab.config.folder import CONF
from reasoning_lab.doctor.checks import CHECKS
from tests.conftest import lab_here
from tests.support.damage import rewrite_template
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

# The twin reads 256 tokens.
SHORT = "benchmarks.heldout.sampling.max_new_tokens=32"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the command is given; `twin` lies there."""
    tokenizer = twin_tokenizer(TWINS["qwen3"], ["the coin shows heads or tails"])
    save_twin(twin_model(TWINS["qwen3"], tokenizer), tokenizer, tmp_path / "twin")
    return tmp_path


def test_a_sound_model_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_here("doctor", "model=twin", SHORT, cwd=folder) == 0
    out, err = capsys.readouterr()
    assert "Loading weights" not in err
    lines = out.splitlines()
    rows = [line for line in lines if line.startswith("[")]
    assert [row.split()[3] for row in rows] == [check.name for check in CHECKS]
    assert lines[-1] == "twin: 37 ok, 4 not applicable."
    assert "    vLLM is not installed" in lines


def test_a_finding_is_named_with_its_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite_template("assistant\n'", "assistant\n<think>\n\n</think>\n\n'")(folder / "twin")
    assert lab_here("doctor", "model=twin", SHORT, cwd=folder) == 1
    out = capsys.readouterr().out
    assert "thought-closed-by-template     wrong" in out
    assert "Reported at https://github.com/huggingface/transformers/issues/37949" in out
    assert "    it is run once thought-closed-by-template is ok" in out.splitlines()
    assert out.splitlines()[-2:] == [
        "To mend: thought-closed-by-template.",
        "twin: 35 ok, 1 wrong, 4 not applicable, 1 not run.",
    ]


def test_the_stages_of_a_recipe_ask_for_their_context(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("recipe=from_scratch", "~stages.pretrain", "stages.midtrain.row_tokens=300")
    assert lab_here("doctor", "model=twin", SHORT, *arguments, cwd=folder) == 1
    out = capsys.readouterr().out
    assert "and the model reads 256 (max_position_embeddings)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "doctor: name what to look at"),
        (["model=tiny"], "set model.path"),
        (["model=tiny", "recipe=tiny"], "trained from scratch"),
        (["model=twin", "seed=0,1"], "one model at a time"),
        (["model=absent"], "none of checkpoint, "),
        (["model=twin/config.json"], "there is no readable config.json in it"),
        (["model=twin", "engine=openai", "hardware.sampling.url=http://127.0.0.1/v1"], "a server"),
    ],
)
def test_what_cannot_be_looked_at_ends_in_one_sentence(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here("doctor", *arguments, cwd=folder) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert message in sentence
    assert "add engine=openai" not in sentence


def test_the_page_of_the_checks_is_what_the_command_prints() -> None:
    """Else: `reasoning-lab doctor --list > conf/CHECKS.md`."""
    assert f"{list_page()}\n" == (CONF / "CHECKS.md").read_text(encoding="utf-8")
