"""Weights & Biases: one run for each stage and one summary run, grouped by recipe run.

Nothing here can stop a training. Without a key or a reachable server a run is stored in a local
folder, which `wandb sync` uploads later. A failure of W&B itself costs a warning.
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
from typing import Any
from urllib.parse import urlsplit

from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.graph.record import Record
from reasoning_lab.tracking.tracker import (
    GLOBAL_STEP,
    TrackedRun,
    Tracker,
    ladder_points,
    ladder_table,
    rollout_table,
)
from reasoning_lab.types import Rollout

log = logging.getLogger(__name__)

os.environ.setdefault("WANDB_SILENT", "true")

# Values of WANDB_MODE, older spellings included.
_ENVIRONMENT_MODES = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


class WandbTracker(Tracker):
    """One W&B run; a resumed stage logs the steps after its last state again, with equal values."""

    def __init__(self, run: TrackedRun, mode: str) -> None:
        self._about = run
        self._mode = mode
        self._folder = wandb_folder(run.runs_dir)
        self._run: Any = None
        self._failed = False

    @classmethod
    def mode(cls, config: TrackerConfig) -> str:
        return wandb_mode(config)

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._call(lambda run: run.log(dict(metrics)))

    def log_rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        extra_columns: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        columns, rows = rollout_table(rollouts, extra_columns)
        self._call(lambda run: run.log({key: _table(columns, rows)}))

    def log_artifact(self, artifact: Record, inputs: Sequence[Record]) -> None:
        # W&B cannot look an input up while it is offline; the metadata still names it.
        for upstream in [] if self._mode == "offline" else inputs:
            self._call(partial(_link_input, upstream))
        self._call(partial(_log_artifact, artifact))

    def log_ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        self._call(lambda run: _log_ladder(run, rows, figure))

    def finish(self) -> None:
        if self._run is not None:
            self._call(lambda run: run.finish())

    def _call(self, action: Callable[[Any], None]) -> None:
        """Call `action` with the run, which starts at the first call; after a failure do nothing.

        W&B's errors have no common class: a lost server, a dead service process, a refused value.
        """
        if self._failed:
            return
        import wandb

        try:
            if self._run is None:
                self._run = self._start()
            action(self._run)
        except Exception as error:
            self._failed = True
            log.warning(
                "W&B failed (%s: %s), so run %s goes on without it; what it logged is in %s.",
                type(error).__name__,
                error,
                self._about.run_id,
                self._folder,
            )
            # Without this the next run would use the same broken service process.
            with suppress(Exception):
                wandb.teardown()

    def _start(self) -> Any:
        import wandb

        about, config = self._about, self._about.config
        self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode="offline" if self._mode == "offline" else "online",
            dir=str(self._folder),
            id=about.run_id,
            resume=None if self._mode == "offline" else "allow",
            name=about.name,
            group=about.group,
            job_type=about.job_type,
            tags=list(dict.fromkeys(t[:64] for t in (*config.tags, about.job_type, *about.tags))),
            config=dict(about.settings),
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=not config.system_metrics
            ),
        )
        run.define_metric(GLOBAL_STEP)
        run.define_metric("*", step_metric=GLOBAL_STEP, step_sync=True)
        return run


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list[str | int](columns), data=[list(row) for row in rows])


def _link_input(artifact: Record, run: Any) -> None:
    """Record in W&B that the run used `artifact`, if W&B knows the artifact."""
    from wandb.errors import CommError

    try:
        run.use_artifact(f"{_artifact_name(artifact)}:latest")
    except (CommError, ValueError) as error:  # Logged offline or in another project.
        log.warning("W&B has no %s to link (%s).", _artifact_name(artifact), error)


def _log_artifact(artifact: Record, run: Any) -> None:
    import wandb

    metadata = {
        "fingerprint": artifact.fingerprint,
        "inputs": dict(artifact.inputs),
        "seed": artifact.seed,
        "metrics": dict(artifact.metrics),
        "ledger": dict(artifact.ledger),
    }
    reference = wandb.Artifact(_artifact_name(artifact), artifact.kind, metadata=metadata)
    reference.add_reference(artifact.path.absolute().as_uri())
    run.log_artifact(reference)


def _log_ladder(run: Any, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
    import wandb

    run.define_metric("ladder/*", step_metric="ladder/stage")
    for stage, key, value in ladder_points(rows):
        run.log({"ladder/stage": stage, f"ladder/{key}": value})
        run.summary[f"eval/{key}"] = value
    table = _table(*ladder_table(rows))
    run.log({"report": table, "report/ladder": wandb.Image(str(figure))})


def _artifact_name(artifact: Record) -> str:
    return f"{artifact.stage}-{artifact.fingerprint}"


def wandb_mode(config: TrackerConfig) -> str:
    """The mode of `config` and the environment's WANDB_MODE: online, offline or disabled.

    `tracker.mode`, unless it is `auto`, overrides the environment, and a log line says so. Without
    either, runs are stored offline if the key is missing or the server does not answer.
    """
    variable = os.environ.get("WANDB_MODE", "")
    environment = _ENVIRONMENT_MODES.get(variable)
    if variable and environment is None:
        known = ", ".join(_ENVIRONMENT_MODES)
        log.warning("WANDB_MODE=%s is unknown and not used; choose among %s.", variable, known)
    if config.mode != "auto":
        if environment not in (None, config.mode):
            log.info("tracker.mode=%s overrides WANDB_MODE=%s.", config.mode, variable)
        return config.mode
    return environment or ("offline" if _is_unreachable(config) else "online")


def wandb_folder(runs: Path) -> Path:
    """Where W&B writes: the environment's WANDB_DIR, or else `wandb` in the folder of all runs."""
    return Path(os.environ.get("WANDB_DIR") or runs / "wandb")


def _is_unreachable(config: TrackerConfig) -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not _has_key(host.hostname or ""):
        log.info("W&B: no API key, so runs are stored offline; `wandb sync` uploads them later.")
        return True
    try:
        port = host.port or (443 if host.scheme == "https" else 80)
        socket.create_connection((host.hostname, port), config.connect_timeout_s).close()
    except OSError as error:
        log.warning(
            "W&B: %s does not answer (%s), so runs are stored offline; `wandb sync` uploads "
            "them later.",
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
