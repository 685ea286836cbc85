"""What the page of `reasoning-lab watch` shows, read from the runs' folders and the store.

Nothing is written, nothing imports torch, and what has not changed is not read again. The store
itself is shown like a run, whose nodes are all of its artifacts.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from reasoning_lab.data.corpus import subsample_rollouts
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.record import RECORD_FILE, CorruptArtifactError, Record
from reasoning_lab.tracking.curves import HISTORY, Curves, in_order, points_of, read_history
from reasoning_lab.tracking.live import (
    LIVE,
    METRICS,
    PROGRESS,
    ROLLOUTS,
    RUN,
    is_alive,
    rollout_json,
)

T = TypeVar("T")

STORE = "store"
MAX_ROLLOUTS = 10_000
_RUNS = ("recipes/*", "sweeps/*/*", "rehearsals/*/report")
# A name of theirs leads nowhere else.
_RUN = re.compile(r"recipes/[^/]+|sweeps/[^/]+/[^/]+|rehearsals/[^/]+/report")
_MAX_RUNS, _MAX_ARTIFACTS = 50, 200
_RESULTS = ("pass@1", "n", "train_tokens")


@dataclass
class _Files:
    """Contents of files by path, each read again once it has changed."""

    _contents: dict[tuple[Path, Any], tuple[tuple[int, int], Any]] = field(default_factory=dict)

    def read(self, path: Path, parse: Callable[[Path], T], default: T) -> T:
        """What `parse` makes of a file; `default` where it is missing or damaged."""
        version = version_of(path)
        if version is None:
            return default
        key = path, parse
        if key not in self._contents or self._contents[key][0] != version:
            try:
                self._contents[key] = version, parse(path)
            except (OSError, ValueError, CorruptArtifactError):
                self._contents[key] = version, default
        content: T = self._contents[key][1]
        return content


@dataclass
class _MetricsFile:
    """The curves of a growing `metrics.jsonl`, of which only what is new is read."""

    curves: Curves = field(default_factory=dict)
    offset: int = 0

    def read(self, path: Path) -> Curves:
        if (version_of(path) or (0, 0))[1] > self.offset:
            with path.open("rb") as file:
                file.seek(self.offset)
                # A line that is being written has no end yet.
                whole, end, _ = file.read().rpartition(b"\n")
            self.offset += len(whole) + len(end)
            for line in whole.splitlines():
                self._add(json.loads(line))
        return self.curves

    def _add(self, metrics: dict[str, Any]) -> None:
        step = metrics.pop("step")
        if step is not None:
            for key, value in metrics.items():
                self.curves.setdefault(key, {})[int(step)] = value


class LiveRuns:
    """Everything below one folder of runs.

    Args:
        runs: The folder; it may be missing.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._files = _Files()
        self._metrics: dict[Path, _MetricsFile] = {}

    def overview(self) -> dict[str, Any]:
        """All runs in short, the newest first, and which of them to show at the beginning."""
        runs = [self._summary(name, run) for name, run in self._latest()]
        alive = [run["id"] for run in runs if run["state"] == "running"]
        newest = [run["id"] for run in runs[:1]]
        if runs and runs[0]["sweep"]:
            newest = [run["id"] for run in runs if run["sweep"] == runs[0]["sweep"]]
        artifacts = sum(1 for _ in self._artifact_files())
        return {
            "folder": str(self._runs.absolute()),
            "runs": runs,
            "older": max(0, len(self._names()) - _MAX_RUNS),
            "artifacts": artifacts,
            "shown": alive or newest or ([STORE] if artifacts else []),
        }

    def run(self, run_id: str) -> dict[str, Any] | None:
        """A run with its nodes; None = there is none of that name."""
        if run_id == STORE:
            nodes = [self._artifact_node(record) for record in self._records()]
            all_artifacts = sum(1 for _ in self._artifact_files())
            newest = f"the newest {_MAX_ARTIFACTS} of {all_artifacts} artifacts of "
            title = f"{newest if all_artifacts > _MAX_ARTIFACTS else ''}the store"
            return {"id": STORE, "title": title, "state": "", "nodes": nodes}
        run = self._run(run_id)
        if run is None:
            return None
        summary = self._summary(run_id, run)
        nodes = [self._node(run_id, run, node, summary["state"]) for node in run["nodes"]]
        return {**summary, "nodes": nodes}

    def curve(self, run_id: str, fingerprint: str, metric: str) -> dict[str, Any] | None:
        """One metric of a node by step, and the names of all; None = there is no such node.

        An empty `metric`, or one that the node lacks, stands for the first.
        """
        node = self._find(run_id, fingerprint)
        if node is None:
            return None
        curves = self._curves(node)
        names = in_order(curves)
        chosen = metric if metric in curves else next(iter(names), "")
        points = points_of(dict(sorted(curves.get(chosen, {}).items())))
        return {"metrics": names, "metric": chosen, "points": points}

    def rollouts(self, run_id: str, fingerprint: str) -> dict[str, Any] | None:
        """The rollouts that a node has in the store, else its last ones; None = no such node."""
        node = self._find(run_id, fingerprint)
        if node is None:
            return None
        stored = self._stored_tables(node)
        share = max(1, MAX_ROLLOUTS // max(len(stored), 1))
        rollouts = [
            {**rollout_json(rollout), "table": path.stem}
            for path in stored
            for rollout in subsample_rollouts(path, share)
        ]
        if not rollouts:
            folder = self._live(run_id) / node["fingerprint"]
            tables: dict[str, Any] = self._files.read(folder / ROLLOUTS, _json, {})
            rollouts = [
                {**rollout, "table": name} for name, rows in tables.items() for rollout in rows
            ]
        return {"rollouts": rollouts}

    def _names(self) -> list[str]:
        """The folders of runs below that of all, the newest first."""
        files = [file for pattern in _RUNS for file in self._runs.glob(f"{pattern}/{LIVE}/{RUN}")]
        names = [file.parents[1].relative_to(self._runs) for file in files]
        # A time is in the name of a run or of its sweep, whose runs have numbers.
        names.sort(key=lambda name: (name.parts[1], len(name.name), name.name), reverse=True)
        return [name.as_posix() for name in names]

    def _latest(self) -> list[tuple[str, dict[str, Any]]]:
        runs = ((name, self._run(name)) for name in self._names()[:_MAX_RUNS])
        return [(name, run) for name, run in runs if run is not None]

    def _run(self, run_id: str) -> dict[str, Any] | None:
        """What a run writes of itself; None = there is none of that name."""
        if not _RUN.fullmatch(run_id) or ".." in Path(run_id).parts:
            return None
        run: dict[str, Any] | None = self._files.read(self._live(run_id) / RUN, _json, None)
        return run

    def _live(self, run_id: str) -> Path:
        return self._runs / run_id / LIVE

    def _summary(self, name: str, run: Mapping[str, Any]) -> dict[str, Any]:
        parts = Path(name).parts
        finished = [node for node in run["nodes"] if _is_finished(run, node)]
        return {
            **{key: run.get(key) for key in ("title", "variant", "seed", "host", "started")},
            **{key: run.get(key) for key in ("ended", "failure")},
            "id": name,
            "sweep": parts[1] if parts[0] == "sweeps" else None,
            "state": self._state(name, run),
            "finished": len(finished),
            "nodes": len(run["nodes"]),
        }

    def _state(self, name: str, run: Mapping[str, Any]) -> str:
        if "ended" in run:
            return "failed" if "failure" in run else "done"
        return "running" if is_alive(self._runs / name) else "killed"

    def _node(
        self, run_id: str, run: Mapping[str, Any], node: Mapping[str, Any], run_state: str
    ) -> dict[str, Any]:
        written = run["states"].get(node["fingerprint"], {"state": "waiting"})
        state = written["state"]
        if state == "running" and run_state != "running":
            state = run_state
        live = self._live(run_id) / node["fingerprint"]
        progress: dict[str, Any] = self._files.read(live / PROGRESS, _json, {})
        record = self._record(node) if _is_finished(run, node) else None
        ledger = progress.get("ledger", {}) if record is None else record.ledger
        return {
            **node,
            **(_of_record(record) if record else {}),
            "state": state,
            "since": written.get("since"),
            "progress": None if record else progress.get("part") or progress.get("stage"),
            "stage_progress": None if record else progress.get("stage"),
            "ledger": Ledger.of(ledger).cells(),
            "versions": self._versions(node, live),
        }

    def _artifact_node(self, record: Record) -> dict[str, Any]:
        node = {"name": record.stage, "stage": record.stage, "fingerprint": record.fingerprint}
        return {
            **node,
            **_of_record(record),
            "inputs": list(record.inputs.values()),
            "state": "done",
            "since": _changed(record.path / RECORD_FILE),
            "ledger": Ledger.of(record.ledger).cells(),
            "versions": self._versions(node, None),
        }

    def _versions(self, node: Mapping[str, Any], live: Path | None) -> dict[str, str]:
        """What changes once there is more to draw or to read; empty = there is nothing."""
        artifact = self._artifact(node)
        curves = [artifact / HISTORY, *([live / METRICS] if live else [])]
        rollouts = [*self._stored_tables(node), *([live / ROLLOUTS] if live else [])]
        return {"curves": _version(curves), "rollouts": _version(rollouts)}

    def _find(self, run_id: str, fingerprint: str) -> Mapping[str, Any] | None:
        nodes: list[Mapping[str, Any]]
        if run_id == STORE:
            nodes = [vars(record) for record in self._records()]
        else:
            nodes = (self._run(run_id) or {"nodes": []})["nodes"]
        return next((node for node in nodes if node["fingerprint"] == fingerprint), None)

    def _curves(self, node: Mapping[str, Any]) -> Curves:
        """Of all runs that made a part of the node; what its artifact has is put last."""
        curves: Curves = {}
        sources = []
        for name, _ in reversed(self._latest()):
            file = self._live(name) / node["fingerprint"] / METRICS
            if file.exists():
                sources.append(self._metrics.setdefault(file, _MetricsFile()).read(file))
        sources.append(self._files.read(self._artifact(node) / HISTORY, _history, {}))
        for source in sources:
            for metric, values in source.items():
                curves.setdefault(metric, {}).update(values)
        return curves

    def _artifact(self, node: Mapping[str, Any]) -> Path:
        return Path(self._runs, "store", node["stage"], node["fingerprint"])

    def _record(self, node: Mapping[str, Any]) -> Record | None:
        file = self._artifact(node) / RECORD_FILE
        return self._files.read(file, _record, None)

    def _artifact_files(self) -> Iterator[Path]:
        return (self._runs / "store").glob(f"*/*/{RECORD_FILE}")

    def _records(self) -> list[Record]:
        """Of the newest artifacts, the oldest first, so that inputs stand before what they made."""
        files = sorted(self._artifact_files(), key=_changed)[-_MAX_ARTIFACTS:]
        records = (self._files.read(file, _record, None) for file in files)
        return [record for record in records if record is not None]

    def _stored_tables(self, node: Mapping[str, Any]) -> list[Path]:
        """The artifact's files of rollouts."""
        record = self._record(node)
        names = record.files if record else ()
        tables = (
            [record.path / name for name in names if name.endswith(".parquet")] if record else []
        )
        return [path for path in tables if self._files.read(path, _has_rollouts, False)]


def version_of(path: Path) -> tuple[int, int] | None:
    """When a file changed and how long it is; None = there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _version(paths: Iterable[Path]) -> str:
    return ",".join("-".join(map(str, version)) for p in paths if (version := version_of(p)))


def _changed(path: Path) -> float:
    return (version_of(path) or (0, 0))[0] / 1e9


def _history(file: Path) -> Curves:
    return read_history(file.parent)


def _record(file: Path) -> Record | None:
    return Record.read(file.parent)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _has_rollouts(path: Path) -> bool:
    return {"prompt", "text", "verdict"} <= set(pq.read_schema(path).names)


def _is_finished(run: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    state = run["states"].get(node["fingerprint"], {})
    return state.get("state") in ("done", "reused")


def _of_record(record: Record) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "wall_s": record.metrics.get("wall_s"),
        "results": {key: record.metrics[key] for key in _RESULTS if key in record.metrics},
    }
