"""What a user's own code may get wrong; REASONING_LAB_TRUSTED names this module."""

import shutil
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file

from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.stage import LabStage


def raising(completion: str) -> float:
    """A reward."""
    return 1 / len(completion[:0])


@dataclass
class BrokenStage(LabStage):
    """It does not run."""

    name = "broken"
    consumes = (Policy,)
    produces = Policy
    reads = ("model",)

    def run(self, *context: Any, **inputs: Any) -> Metrics:
        settings: dict[str, int] = {}
        return {"value": settings["lambda"]}


@dataclass
class PicklingStage(LabStage):
    """It writes weights that the lab does not load, as pickles run code."""

    name = "pickling"
    consumes = (Policy,)
    produces = Policy
    reads = ("model",)

    def run(self, *context: Any, **inputs: Any) -> Metrics:
        shutil.copytree(inputs["policy"].path, context[0].out_dir, dirs_exist_ok=True)
        weights = context[0].out_dir / "model.safetensors"
        torch.save(load_file(weights), context[0].out_dir / "pytorch_model.bin")
        weights.unlink()
        return {"train_tokens": 0, "wall_s": 0.0}
