"""Which prompts an artifact remembers to have trained on."""

from pathlib import Path

from reasoning_lab.data.trained_prompts import TrainedPrompts


def trained_ids(folder: Path) -> set[str]:
    """Ids of the problems, as `Problem.id` writes them."""
    return {f"{number:016x}" for number in TrainedPrompts.read(folder).ids}
