"""The stored completions of an evaluation, as far as statistics need them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.types import Verdict, prompt_id

COMPLETIONS = "completions.parquet"


@dataclass(frozen=True)
class Evaluation(Artifact):
    """Every verified completion of a policy on one benchmark."""

    kind = "evaluation"

    @property
    def completions_file(self) -> Path:
        """One row a completion, those of a problem in turn."""
        return self.path / COMPLETIONS

    def samples(self, samples: int) -> "Samples":
        """What statistics need of them; `samples` is their number a problem."""
        columns = ["prompt", "verdict", "token_ids"]
        table = pq.read_table(self.completions_file, columns=columns)
        prompts = table["prompt"].to_pylist()[::samples]
        correct = pc.equal(table["verdict"], str(Verdict.CORRECT)).to_numpy()
        tokens = pc.list_value_length(table["token_ids"]).to_numpy()
        return Samples(
            [prompt_id(prompt) for prompt in prompts],
            correct.reshape(len(prompts), samples),
            tokens.reshape(len(prompts), samples).astype(np.int64),
        )


class Samples(NamedTuple):
    """Verified completions, problem by problem.

    Attributes:
        problem_ids: P ids.
        correct: `[P, S]` bool, True = correct.
        completion_tokens: `[P, S]` int64.
    """

    problem_ids: list[str]
    correct: npt.NDArray[np.bool_]
    completion_tokens: npt.NDArray[np.int64]
