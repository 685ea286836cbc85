"""The stored completions of an evaluation, as far as statistics need them."""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.data.rollout_index import EARLIER_MESSAGES, user_texts
from reasoning_lab.graph.artifact import Artifact
from reasoning_lab.types import DEFAULT_DOMAIN, Verdict, prompt_id

COMPLETIONS = "completions.parquet"


@dataclass(frozen=True)
class Evaluation(Artifact):
    """Every verified completion of a policy on one benchmark."""

    kind = "evaluation"

    @property
    def completions_file(self) -> Path:
        """One row a completion, those of a problem in turn."""
        return self.path / COMPLETIONS

    def completions(self) -> RolloutFile:
        return RolloutFile(self.completions_file)

    def samples(self, samples: int) -> "Samples":
        """What statistics need of them; `samples` is their number a problem."""
        ids: list[str] = []
        domains: list[str] = []
        correct, tokens = array("b"), array("q")
        columns = ["prompt", EARLIER_MESSAGES, "verdict", "token_ids", "domain"]
        for batch in self.completions().batches(columns):
            firsts = slice(-len(tokens) % samples, None, samples)
            ids += map(prompt_id, user_texts(batch)[firsts])
            domains += [name or DEFAULT_DOMAIN for name in batch["domain"].to_pylist()[firsts]]
            correct.extend(pc.equal(batch["verdict"], str(Verdict.CORRECT)).to_pylist())
            tokens.extend(pc.list_value_length(batch["token_ids"]).to_pylist())
        shape = (len(ids), samples)
        return Samples(
            ids,
            np.array(correct, np.bool_).reshape(shape),
            np.array(tokens).reshape(shape),
            domains,
        )

    def outcomes(self, samples: int) -> pa.Table:
        """What became of each completion, without its text.

        One row a completion: `problem` (id), `domain`, `family`, `level`, `sample` (0 to `samples`
        - 1), `verdict` and `completion_tokens`. `samples` is their number a problem.
        """
        tables = []
        copied = ["family", "level", "verdict"]
        columns = ["prompt", EARLIER_MESSAGES, "domain", "token_ids", *copied]
        for batch in self.completions().batches(columns):
            outcome = {
                "problem": [prompt_id(text) for text in user_texts(batch)],
                "domain": pc.fill_null(batch["domain"], DEFAULT_DOMAIN),
                "completion_tokens": pc.list_value_length(batch["token_ids"]),
                **{name: batch[name] for name in copied},
            }
            tables.append(pa.table(outcome))
        table = pa.concat_tables(tables)
        return table.append_column("sample", pa.array(np.arange(len(table)) % samples))


class Samples(NamedTuple):
    """Verified completions, problem by problem.

    Attributes:
        problem_ids: P ids.
        correct: `[P, S]` bool, True = correct.
        completion_tokens: `[P, S]` int64.
        domains: P names.
    """

    problem_ids: list[str]
    correct: npt.NDArray[np.bool_]
    completion_tokens: npt.NDArray[np.int64]
    domains: list[str]
