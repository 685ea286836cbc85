"""trackio, Hugging Face's local dashboard: one run for each stage, grouped by recipe run.

Everything stays on this machine: runs lie in a SQLite file below the folder of all runs, and
nothing is sent to a server. `trackio show` draws them. Artifacts and their lineage are left out.
"""

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reasoning_lab.config.components import require_package
from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.tracking.tracker import (
    GLOBAL_STEP,
    TrackedRun,
    Tracker,
    ladder_points,
    ladder_table,
    rollout_table,
)
from reasoning_lab.types import Rollout, UserError

log = logging.getLogger(__name__)

# With them trackio would send runs to a server, and make a public Space for it.
_SERVER_VARIABLES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class TrackioTracker(Tracker):
    """One run of trackio, which continues when its stage is resumed."""

    def __init__(self, run: TrackedRun, mode: str) -> None:
        self._about = run
        self._started: Any = None
        self._step: int | None = None

    @classmethod
    def check(cls) -> None:
        remedy = ", or choose tracker=wandb"
        require_package("trackio", "tracker.backends=[trackio]", "trackio", remedy)
        for name in _SERVER_VARIABLES:
            if os.environ.get(name):
                raise UserError(
                    f"{name}: with it trackio sends runs to a server, and here they stay on this "
                    f"machine; unset {name}, or choose tracker=wandb"
                )

    @classmethod
    def mode(cls, config: TrackerConfig) -> str:
        return "disabled" if config.mode == "disabled" else "offline"

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._step = metrics.get(GLOBAL_STEP, self._step)
        self._log(metrics, self._step)

    def log_rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        extra_columns: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        self._log_table(key, *rollout_table(rollouts, extra_columns))

    def log_ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        for stage, key, value in ladder_points(rows):
            values = {"ladder/stage": stage, f"ladder/{key}": value, f"eval/{key}": value}
            self._log(values, stage)
        self._log_table("report", *ladder_table(rows))

    def finish(self) -> None:
        if self._started is not None:
            import trackio

            with _quiet():
                trackio.finish()  # type: ignore[no-untyped-call]
            self._started = None

    def _log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        # What trackio itself cannot write it warns of, without an error.
        self._run().log(dict(metrics), step=step)

    def _log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        run = self._run()
        import trackio

        run.log(
            {key: trackio.Table(columns=list(columns), data=[list(row) for row in rows])},
            step=self._step,
        )

    def _run(self) -> Any:
        """The run, which starts when it is first needed."""
        if self._started is None:
            self._started = self._start()
        return self._started

    def _start(self) -> Any:
        about, config = self._about, self._about.config
        # Before trackio is imported, which reads it once.
        os.environ.setdefault("TRACKIO_DIR", str((about.runs_dir / "trackio").absolute()))
        import trackio

        with _quiet():
            run = trackio.init(
                project=config.project,
                # A run is found again by its name, so the name has the fingerprint.
                name=about.run_id,
                group=about.group,
                resume="allow",
                config={
                    "name": about.name,
                    "job_type": about.job_type,
                    "tags": [*config.tags, *about.tags],
                    **about.settings,
                },
                embed=False,
                auto_log_gpu=None if config.system_metrics else False,
                auto_log_cpu=None if config.system_metrics else False,
            )
        _say_where(str(trackio.utils.TRACKIO_DIR), config.project)
        return run


@cache
def _say_where(folder: str, project: str) -> None:
    show = f"TRACKIO_DIR={folder} trackio show --project {project}"
    log.info("trackio: runs are kept in %s; to look at them: %s", folder, show)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep trackio from printing, and from asking the hub who the user is."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
