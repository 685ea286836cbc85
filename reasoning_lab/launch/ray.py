"""Run a stage on machines of a Ray cluster: each machine starts one torchrun on the saved job.

The folder of runs must be visible to every machine. If this command dies, Ray ends its tasks, and
torchrun's processes end with the task that started them. If a machine dies, the job starts again
from its last state on machines that are free.
"""

import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_lab.config.components import require_package
from reasoning_lab.config.hardware import RayConfig
from reasoning_lab.launch.torchrun import Launch
from reasoning_lab.system.files import checksummed_names, empty_folder
from reasoning_lab.system.interrupts import clear_requests, is_stop_requested
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

log = logging.getLogger(__name__)

_ATTEMPT = "attempt"
_CANCEL_TIMEOUT_S = 60.0
_LOSS_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
# Environment variables that each machine sets for itself.
_MACHINE_VARIABLES = ("CUDA_", "RAY_")
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|CONNECTION_STRING|_PWD$"
    r"|(?:^|_|API)(?:TOKEN|KEY|PASS|PAT|AUTH|DSN)S?(?:_|$)",
    re.IGNORECASE,
)
# An address with a user, mostly with a password behind it, as proxies and databases have.
_SECRET_VALUE = re.compile(r"://[^/\s]*@")


def check_ray(config: RayConfig) -> None:
    """Join the cluster until this process ends.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    require_package("ray", "hardware.ray", "launchers")
    import ray

    if ray.is_initialized():
        return
    address = config.address or os.environ.get("RAY_ADDRESS", "auto")
    try:
        if address != "auto":
            # Ray itself would wait for minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
        ray.init(address=config.address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"hardware.ray.address: no Ray cluster can be joined ({reason}); start one with "
            "`ray start --head`, run the command on one of its machines, or name its address"
        ) from error


def run_on_ray(config: RayConfig, launch: Launch, work_dir: Path, out_dir: Path) -> str | None:
    """Run a job on machines of the cluster, again on others where one is lost.

    Args:
        config: What it asks of the cluster.
        launch: The job and what it takes.
        work_dir: The stage's work folder, whose last state a new start goes on from.
        out_dir: The folder that the job fills.

    Returns:
        The failure in words; None = success.

    Raises:
        UserError: No cluster can be joined.
    """
    check_ray(config)
    starts, saved = 0, checksummed_names(work_dir)
    while True:
        starts += 1
        empty_folder(out_dir)
        try:
            failure = _start(config, launch)
        except MachineLostError as lost:
            if (now := checksummed_names(work_dir)) != saved:
                starts, saved = 0, now
            if starts > config.restarts_without_progress:
                return (
                    f"{lost}, with nothing saved since the last start; "
                    f"hardware.ray.restarts_without_progress={config.restarts_without_progress}"
                )
            if is_stop_requested(work_dir):
                return str(lost)
            clear_requests(work_dir)
            log.warning("%s: %s; it starts again from its last state", launch.name, lost)
        else:
            return failure and (launch.failed_process() or failure)


class MachineLostError(RuntimeError):
    """A machine of the cluster was lost, with what ran there."""


def _start(config: RayConfig, launch: Launch) -> str | None:
    """Run a job on machines that are free; the failure in words, or None.

    Raises:
        MachineLostError: One of them was lost.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    cpus, nodes = float(config.cpus_per_device * launch.processes), launch.nodes
    resources = {"CPU": cpus, "GPU": float(launch.gpus)} | config.resources
    resources = {key: value for key, value in resources.items() if value}
    attempt, variables = uuid.uuid4().hex, variables_of_tasks(launch.name)
    (launch.folder / _ATTEMPT).write_text(attempt, encoding="utf-8")
    for log_file in launch.logs():
        log_file.unlink()
    with reserve_machines(resources, nodes, launch.name) as group:

        def remote_on(node: int, function: Any, **options: Any) -> Any:
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
            return ray.remote(function).options(
                max_retries=0, scheduling_strategy=strategy, **options
            )

        with _as_losses():
            first = ray.get(remote_on(0, _free_address, num_cpus=0).remote())
        taken = {"num_cpus": resources["CPU"], "num_gpus": launch.gpus}
        tasks = [
            remote_on(node, _run_on_machine, **taken).remote(
                launch, node, first, attempt, Path.cwd(), variables
            )
            for node in range(nodes)
        ]
        log.info(
            "%s: on %d machines of the Ray cluster; logs are in %s",
            launch.name,
            nodes,
            launch.folder,
        )
        return _first_failure(tasks)


@contextmanager
def reserve_machines(
    resources: Mapping[str, float], nodes: int, name: str, notice_after_s: float = 30.0
) -> Iterator["PlacementGroup"]:
    """Reserve `nodes` different machines for the context, waiting until they are free.

    Each has these resources, by Ray's names. After `notice_after_s` seconds without them, a line of
    the log that names the stage says so.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(resources)] * nodes, strategy="STRICT_SPREAD")
    try:
        if not group.wait(notice_after_s):
            log.info(
                "%s: waiting for %d machines of the Ray cluster, each with %s free",
                name,
                nodes,
                resources,
            )
            ray.get(group.ready())
        yield group
    finally:
        # Ends tasks that still run there.
        remove_placement_group(group)


def _first_failure(tasks: list[Any]) -> str | None:
    """Wait for all tasks, and cancel the rest after a failure; the failure in words, or None.

    Raises:
        MachineLostError: One of their machines was lost.
    """
    import ray

    running, failure = tasks, None
    deadline: float | None = None
    try:
        while running:
            timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            finished, running = ray.wait(running, timeout=timeout_s)
            if not finished:
                break
            try:
                with _as_losses():
                    failure = next(filter(None, ray.get(finished)), failure)
            except ray.exceptions.RayTaskError as error:
                failure = f"a machine could not start it ({error.cause})"
            if failure and deadline is None:
                # Processes fail when a peer's machine is lost, before Ray reports the loss.
                deadline = time.monotonic() + _LOSS_TIMEOUT_S
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_CANCEL_TIMEOUT_S)
    return failure


@contextmanager
def _as_losses() -> Iterator[None]:
    """Turn Ray's reports of a lost machine, which are not those of a task, into our own."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = f"a machine of the Ray cluster was lost ({type(error).__name__})"
        raise MachineLostError(reason) from error


def variables_of_tasks(name: str) -> dict[str, str]:
    """This process's environment without secrets, by their names or as a part of an address.

    Ray shows a task's arguments to everyone who may look at the cluster.
    """
    secrets = sorted(
        variable
        for variable, value in os.environ.items()
        if _SECRET_NAME.search(variable) or _SECRET_VALUE.search(value)
    )
    if secrets:
        log.info(
            "%s: the machines of the Ray cluster are not given %s; they need their own",
            name,
            ", ".join(secrets),
        )
    return {key: value for key, value in os.environ.items() if key not in secrets}


def _free_address() -> tuple[str, int]:
    """This machine's address and a free port."""
    import ray

    with socket.socket() as listener:
        listener.bind(("", 0))
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return address, listener.getsockname()[1]


def _run_on_machine(
    launch: Launch,
    node: int,
    first: tuple[str, int],
    attempt: str,
    working_directory: Path,
    variables: Mapping[str, str],
) -> str | None:
    """Run machine `node`'s part of the job in the command's folder and environment.

    The machine's own variables take precedence. `first` is the first machine's free address. The
    processes end when another attempt has begun.
    """
    os.chdir(working_directory)
    for key, value in variables.items():
        if not key.startswith(_MACHINE_VARIABLES):
            os.environ.setdefault(key, value)
    file = launch.folder / _ATTEMPT

    def is_wanted() -> bool:
        return file.read_text(encoding="utf-8") == attempt

    return launch.run_here(node, *first, is_wanted)
