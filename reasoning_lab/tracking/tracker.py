"""Weights & Biases: one run a stage and a summary, grouped by recipe run; offline by itself.

Nothing here can stop a training: without a key or without a server a run is kept in a local
folder that `wandb sync` sends later, and a failure of W&B itself costs a warning.
"""

import logging
import netrc
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.graph.store import Artifact
from reasoning_lab.types import Rollout

log = logging.getLogger(__name__)

os.environ.setdefault("WANDB_SILENT", "true")

# The x axis of every metric: a resumed offline run counts W&B's own steps anew. A resumed stage
# logs again, with the same values, the steps behind its last state; those before it are there.
GLOBAL_STEP = "trainer/global_step"
# wandb's own words, the older ones included.
_ENVIRONMENT_MODES = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_COLUMNS: list[str | int] = [
    "problem",
    "completion",
    "gold",
    "answer",
    "verdict",
    "family",
    "level",
    "tokens",
    "judge",
]


class Tracker(Protocol):
    """Where a stage's metrics and tables go."""

    run_id: str | None

    @property
    def lightning_logger(self) -> Any:
        """What `pl.Trainer(logger=…)` takes; False = none."""
        ...

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        beside: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        """Log a table of completions with their verdicts, and numbers `beside` them by column."""
        ...

    def made(self, artifact: Artifact, inputs: Sequence[Artifact]) -> None:
        """Log what a stage made, as a reference to its folder, and what it was made of."""
        ...

    def ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        """Log the complete table of a recipe run, whether its stages were made or reused."""
        ...

    def finish(self) -> None: ...


class NullTracker:
    """Keeps nothing: `tracker.mode=disabled`."""

    lightning_logger = False
    run_id: str | None = None

    def log(self, metrics: Mapping[str, Any]) -> None:
        pass

    def rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        beside: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        pass

    def made(self, artifact: Artifact, inputs: Sequence[Artifact]) -> None:
        pass

    def ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        pass

    def finish(self) -> None:
        pass


class WandbTracker:
    """One W&B run.

    Args:
        config: Project, entity, tags.
        offline: True = keep the run in `folder` until it is synced.
        folder: Where W&B writes.
        run_id: Names the run, so that a resumed stage goes on in it.
        name: Shown name.
        group: The recipe run.
        job_type: The stage, or summary.
        tags: Beside those of the config; cut to W&B's 64 characters.
        settings: The stage's resolved config.
    """

    def __init__(
        self,
        config: TrackerConfig,
        offline: bool,
        folder: Path,
        run_id: str,
        name: str,
        group: str,
        job_type: str,
        tags: Sequence[str],
        settings: Mapping[str, Any],
    ) -> None:
        self.run_id: str | None = run_id
        self._offline = offline
        self._folder = folder
        self._run: Any = None
        self._lost = False
        self._options: dict[str, Any] = {
            "project": config.project,
            "entity": config.entity,
            "mode": "offline" if offline else "online",
            "dir": str(folder),
            "id": run_id,
            "resume": None if offline else "allow",
            "name": name,
            "group": group,
            "job_type": job_type,
            "tags": list(dict.fromkeys(tag[:64] for tag in (*config.tags, job_type, *tags))),
            "config": dict(settings),
        }

    @property
    def lightning_logger(self) -> Any:
        from reasoning_lab.tracking.lightning import TrackerLogger

        return TrackerLogger(self)

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._do(lambda run: run.log(dict(metrics)))

    def rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        beside: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        rows = [
            [
                rollout.problem.prompt,
                rollout.completion.text,
                rollout.problem.gold,
                rollout.answer,
                str(rollout.verdict),
                rollout.problem.family,
                rollout.problem.level,
                len(rollout.completion.token_ids),
                rollout.judge,
                *(column[number] for column in beside.values()),
            ]
            for number, rollout in enumerate(rollouts)
        ]
        self._do(lambda run: run.log({key: _table([*_COLUMNS, *beside], rows)}))

    def made(self, artifact: Artifact, inputs: Sequence[Artifact]) -> None:
        # W&B cannot look an input up while it is offline; the metadata names it all the same.
        for each in [] if self._offline else inputs:
            self._do(partial(_link, each))
        self._do(partial(_log_artifact, artifact))

    def ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        self._do(lambda run: _log_ladder(run, rows, figure))

    def finish(self) -> None:
        if self._run is not None:
            self._do(lambda run: run.finish())

    def _do(self, act: Callable[[Any], None]) -> None:
        """Do `act` with the run, started when first needed; once W&B has failed it is left alone.

        Its errors have no common class: a lost server, a dead service process, a refused value.
        """
        if self._lost:
            return
        import wandb

        try:
            if self._run is None:
                self._run = self._start()
            act(self._run)
        except Exception as error:
            self._lost = True
            log.warning(
                "W&B failed (%s: %s), so run %s goes on without it; what it had is in %s.",
                type(error).__name__,
                error,
                self.run_id,
                self._folder,
            )
            # The next run gets a service process of its own.
            with suppress(Exception):
                wandb.teardown()

    def _start(self) -> Any:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        run = wandb.init(**self._options, settings=quiet)
        run.define_metric(GLOBAL_STEP)
        run.define_metric("*", step_metric=GLOBAL_STEP, step_sync=True)
        return run


def _table(columns: Sequence[str | int], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


def _link(artifact: Artifact, run: Any) -> None:
    """Tell W&B that the run was made from `artifact`, if W&B has it."""
    from wandb.errors import CommError

    try:
        run.use_artifact(f"{_artifact_name(artifact)}:latest")
    except (CommError, ValueError) as error:  # Made offline or by another project.
        log.warning("W&B has no %s to link (%s).", _artifact_name(artifact), error)


def _log_artifact(artifact: Artifact, run: Any) -> None:
    import wandb

    metadata = {
        "fingerprint": artifact.fingerprint,
        "inputs": dict(artifact.inputs),
        "seed": artifact.seed,
        "metrics": dict(artifact.metrics),
        "ledger": dict(artifact.ledger),
    }
    logged = wandb.Artifact(_artifact_name(artifact), artifact.kind, metadata=metadata)
    logged.add_reference(artifact.path.absolute().as_uri())
    run.log_artifact(logged)


def _log_ladder(run: Any, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
    import wandb

    run.define_metric("ladder/*", step_metric="ladder/stage")
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for row in rows:
        key = f"ladder/{row['benchmark']}/pass@1"
        run.log({"ladder/stage": stages.index(row["stage"]), key: row["pass@1"]})
        run.summary[f"eval/{row['benchmark']}/pass@1"] = row["pass@1"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    run.log({"report": _table(columns, cells), "report/ladder": wandb.Image(str(figure))})


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, list) else value


def _artifact_name(artifact: Artifact) -> str:
    return f"{artifact.stage}-{artifact.fingerprint}"


def tracking_mode(config: TrackerConfig) -> str:
    """What `config` and the environment's WANDB_MODE come to: online, offline or disabled.

    `tracker.mode`, where it is not auto, overrides the environment, which is logged. Without
    either, a missing key or a server that does not answer keep runs local; a line says how to send
    them later.
    """
    wanted = os.environ.get("WANDB_MODE", "")
    environment = _ENVIRONMENT_MODES.get(wanted)
    if wanted and environment is None:
        known = ", ".join(_ENVIRONMENT_MODES)
        log.warning("WANDB_MODE=%s is unknown and not used; choose among %s.", wanted, known)
    if config.mode != "auto":
        if environment not in (None, config.mode):
            log.info("tracker.mode=%s overrides WANDB_MODE=%s.", config.mode, wanted)
        return config.mode
    return environment or ("offline" if _is_unreachable(config) else "online")


def runs_folder(runs: Path) -> Path:
    """Where W&B writes: the environment's WANDB_DIR, else `wandb` in the folder of all runs."""
    return Path(os.environ.get("WANDB_DIR") or runs / "wandb")


def _is_unreachable(config: TrackerConfig) -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not _has_key(host.hostname or ""):
        log.info("W&B: no API key, so runs are kept offline; `wandb sync` sends them later.")
        return True
    try:
        port = host.port or (443 if host.scheme == "https" else 80)
        socket.create_connection((host.hostname, port), config.connect_timeout_s).close()
    except OSError as error:
        log.warning(
            "W&B: %s does not answer (%s), so runs are kept offline; `wandb sync` sends them "
            "later.",
            host.hostname,
            error,
        )
        return True
    return False


def _has_key(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
