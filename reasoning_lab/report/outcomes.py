"""The outcomes of runs as one small file, of which a report is made again without the runs.

An experiment commits `outcomes.parquet` beside its page. It has one row a completion with its
verdict and without its text. The file's own metadata has what verdicts do not say: the rows of the
report, its head and the ledgers of its stages. Means, intervals and comparisons are computed anew.
Seeds come one after another: those in the file need no store when the file is written again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.evaluate.statistics import pass_at_1
from reasoning_lab.report.evidence import Evidence, GraphNode
from reasoning_lab.report.overlap import PromptOverlap
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.system.files import write_atomically
from reasoning_lab.types import UserError, Verdict

OUTCOMES = "outcomes.parquet"
_POLICY = ("variant", "stage", "seed", "benchmark")
_SCHEMA = pa.schema(
    {
        "variant": pa.string(),
        "stage": pa.string(),
        "seed": pa.int64(),
        "benchmark": pa.string(),
        "problem": pa.string(),
        "domain": pa.string(),
        "family": pa.string(),
        "level": pa.int64(),
        "sample": pa.int64(),
        "verdict": pa.string(),
        "completion_tokens": pa.int64(),
    }
)
_METADATA = "reasoning_lab.report"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a report is made of, as `write_report` takes it.

    Attributes:
        rows: One for each policy, seed and benchmark.
        results: The verified samples of each row, in the same order.
        evidence: The nodes of the graph with their ledgers.
        verdicts: A row for each completion, with the columns of `write_outcomes`.
    """

    rows: Sequence[Row]
    results: Sequence[StageResult]
    evidence: Evidence
    verdicts: pa.Table

    def verdicts_of(self, row: Row) -> pa.Table:
        """The completions of one row, in their order."""
        return _verdicts_of(row, self.verdicts)

    @property
    def seeds(self) -> list[int]:
        return sorted({row.seed for row in self.rows})

    @property
    def seconds_per_seed(self) -> float:
        """Seconds of all stages and evaluations, each made once, by the number of seeds."""
        nodes = self.evidence.nodes.values()
        return sum(node.wall_s or 0.0 for node in nodes) / len(self.seeds)


def verdicts_of_evaluation(row: Row, evaluation: Evaluation) -> pa.Table:
    """A row for each completion of the evaluation behind `row`, as `write_outcomes` takes it."""
    table = evaluation.outcomes(row.samples)
    for name in _POLICY:
        table = table.append_column(name, pa.array([getattr(row, name)] * len(table)))
    return table.select(_SCHEMA.names).cast(_SCHEMA)


def write_outcomes(
    file: Path, rows: Sequence[Row], verdicts: Sequence[pa.Table], evidence: Evidence
) -> None:
    """Write the outcomes of these policies; `verdicts` are those of each row of a whole benchmark.

    Columns: `variant`, `stage`, `seed`, `benchmark` (as in `Row`), `problem` (id), `domain`,
    `family`, `level`, `sample`, `verdict` and `completion_tokens`. Rows of one domain are not
    written, as they follow from the others.
    """
    whole = [row for row in rows if row.domain is None]
    if len(whole) != len(verdicts):
        raise ValueError(f"{len(verdicts)} tables of verdicts for {len(whole)} rows")
    nodes = [asdict(node) for node in evidence.nodes.values()]
    content = {
        "format": _FORMAT,
        "commands": evidence.commands,
        "rows": [row.as_json() for row in whole],
        "nodes": nodes,
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    file.parent.mkdir(parents=True, exist_ok=True)

    def write(draft: Path) -> None:
        # Arrow's own copy of the schema would hold the metadata once more.
        with pq.ParquetWriter(draft, _SCHEMA, compression="zstd", store_schema=False) as writer:
            writer.write_table(pa.concat_tables(verdicts))
            writer.add_key_value_metadata({_METADATA: text})

    write_atomically(file, write)


def read_outcomes(file: Path) -> Outcomes:
    """Read what `write_outcomes` wrote.

    Raises:
        UserError: There is no such file, it has another format, or the verdicts are not those that
            its rows were computed from.
    """
    if not file.is_file():
        raise UserError(
            f"{file}: there is no such file; name a folder with the {OUTCOMES} that "
            "`reasoning-lab report … outcomes=FOLDER` writes"
        )
    try:
        table = pq.read_table(file)
        content = json.loads((pq.read_metadata(file).metadata or {})[_METADATA.encode()])
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}")
        whole = [Row.of_json(values) for values in content["rows"]]
        verdicts = [_result(row, table) for row in whole]
        nodes = {node["fingerprint"]: _node(**node) for node in content["nodes"]}
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{file}: it is no outcomes file of this version ({fault}); write it again with "
            "`reasoning-lab report … outcomes=FOLDER`"
        ) from error
    rows: list[Row] = []
    results: list[StageResult] = []
    for row, result in zip(whole, verdicts, strict=True):
        _check(file, row, result)
        of_domains = result.by_domain()
        rows += [row, *(row.of_domain(part) for part in of_domains)]
        results += [result, *of_domains]
    evidence = Evidence(nodes=nodes, commands=content.get("commands", []))
    return Outcomes(rows, results, evidence, table)


def _node(overlap: Mapping[str, Any] | None = None, **values: Any) -> GraphNode:
    return GraphNode(**values, overlap=None if overlap is None else PromptOverlap(**overlap))


def _result(row: Row, table: pa.Table) -> StageResult:
    """The verified samples of one row."""
    about: dict[str, Any] = {name: getattr(row, name) for name in _POLICY}
    mine = _verdicts_of(row, table)
    if not len(mine):
        raise LookupError(f"no verdict of '{row.stage}', seed {row.seed}, on '{row.benchmark}'")
    shape = (-1, row.samples)
    return StageResult(
        **about,
        fingerprint=row.fingerprint,
        problem_ids=mine["problem"].to_pylist()[:: row.samples],
        correct=pc.equal(mine["verdict"], str(Verdict.CORRECT)).to_numpy().reshape(shape),
        completion_tokens=mine["completion_tokens"].to_numpy().reshape(shape),
        domains=mine["domain"].to_pylist()[:: row.samples],
    )


def _verdicts_of(row: Row, table: pa.Table) -> pa.Table:
    is_row = [pc.equal(table[name], getattr(row, name)).to_numpy() for name in _POLICY]
    return table.filter(np.logical_and.reduce(is_row))


def _check(file: Path, row: Row, result: StageResult) -> None:
    """Refuse a row whose pass@1 does not follow from its verdicts."""
    computed = pass_at_1(result.correct)
    if computed.n != row.n or abs(computed.mean - row.pass_at_1) > 1e-9:
        raise UserError(
            f"{file}: '{row.stage}' of seed {row.seed} has pass@1 {computed.mean:.4f} of "
            f"{computed.n} problems by its verdicts, and {row.pass_at_1:.4f} of {row.n} by its "
            "row; write the file again from the store"
        )
