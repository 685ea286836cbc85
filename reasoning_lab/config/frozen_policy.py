"""A policy that a stage reads and does not train. No torch here."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from reasoning_lab.types import UserError


@dataclass
class FrozenPolicyConfig:
    """A policy that does not learn: what an earlier stage makes, or a checkpoint.

    Attributes:
        stage: The earlier stage; null = `path` names a checkpoint.
        path: A Hugging Face folder, such as an artifact of a store, or a hub id.
        revision: The hub commit of `path`.
        dtype: Precision of its weights and arithmetic: float32 or bfloat16; null = that in which
            the run's own policies sample.
    """

    stage: str | None = None
    path: str | None = None
    revision: str | None = None
    dtype: str | None = field(default=None, metadata={"choices": ("float32", "bfloat16")})

    def named(self, key: str) -> str:
        """The key and the value that name the policy, for errors; `key` is where this stands."""
        return f"{key}.path={self.path}" if self.stage is None else f"{key}.stage={self.stage}"

    def check(self, key: str) -> None:
        """Refuse anything but one policy, and a folder without a checkpoint.

        `key` is where this stands in the config.
        """
        if (self.stage is None) == (self.path is None):
            wrong = "neither stage nor path names" if self.stage is None else "stage and path name"
            raise UserError(
                f"{key}: {wrong} a policy; give one of them, as in {key}.stage=sft for an earlier "
                f"stage, or {key}.path=FOLDER for a checkpoint"
            )
        if self.revision is not None and self.path is None:
            raise UserError(
                f"{key}.revision={self.revision}: a stage has no revision, as a checkpoint of the "
                "hub does; leave it out"
            )
        if self.path is not None:
            check_checkpoint(self.path, f"{key}.path")


def check_checkpoint(path: str, key: str) -> None:
    """Refuse a folder that holds no Hugging Face checkpoint; an id of the hub has no files here.

    Raises:
        UserError: The folder's config.json is not there or cannot be read.
    """
    folder = Path(path)
    if not folder.exists():
        return
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise UserError(
            f"{key}={path}: there is no readable config.json in it; name the folder of a "
            "Hugging Face checkpoint, or a hub id"
        )
