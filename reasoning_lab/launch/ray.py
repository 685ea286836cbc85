"""Run a stage on machines of a Ray cluster: each machine starts one torchrun on the saved job.

The folder of runs must be visible to every machine. If this command dies, Ray ends its tasks, and
torchrun's processes end with the task that started them.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_lab.config.components import require_package
from reasoning_lab.config.hardware import RayConfig
from reasoning_lab.launch.torchrun import Launch
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

log = logging.getLogger(__name__)

_CANCEL_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
# Environment variables that each machine sets for itself.
_MACHINE_VARIABLES = ("CUDA_", "RAY_")


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


def run_on_ray(config: RayConfig, launch: Launch) -> str | None:
    """Run a job on machines of the cluster; the failure in words, or None.

    Raises:
        UserError: No cluster can be joined.
    """
    check_ray(config)
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    cpus, nodes = float(config.cpus_per_device * launch.processes), launch.nodes
    resources = {"CPU": cpus, "GPU": float(launch.gpus)} | config.resources
    resources = {key: value for key, value in resources.items() if value}
    with reserve_machines(resources, nodes, launch.name) as group:

        def remote_on(node: int, function: Any, **options: Any) -> Any:
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
            return ray.remote(function).options(
                max_retries=0, scheduling_strategy=strategy, **options
            )

        first = ray.get(remote_on(0, _free_address, num_cpus=0).remote())
        taken = {"num_cpus": resources["CPU"], "num_gpus": launch.gpus}
        tasks = [
            remote_on(node, _run_on_machine, **taken).remote(
                launch, node, first, Path.cwd(), dict(os.environ)
            )
            for node in range(nodes)
        ]
        log.info(
            "%s: on %d machines of the Ray cluster; logs are in %s",
            launch.name,
            nodes,
            launch.folder,
        )
        failure = _first_failure(tasks)
    return failure and (launch.failed_process() or failure)


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
    """Wait for all tasks, and cancel the rest after a failure; the failure in words, or None."""
    import ray

    running, failure = tasks, None
    try:
        while running and failure is None:
            finished, running = ray.wait(running)
            try:
                failure = next(filter(None, ray.get(finished)), None)
            except ray.exceptions.RayError as error:
                failure = f"a machine of the Ray cluster was lost ({type(error).__name__})"
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_CANCEL_TIMEOUT_S)
    return failure


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
    working_directory: Path,
    variables: Mapping[str, str],
) -> str | None:
    """Run machine `node`'s part of the job in the command's folder and environment.

    The machine's own variables take precedence. `first` is the first machine's free address.
    """
    os.chdir(working_directory)
    for key, value in variables.items():
        if not key.startswith(_MACHINE_VARIABLES):
            os.environ.setdefault(key, value)
    return launch.run_here(node, *first)
