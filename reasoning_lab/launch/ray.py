"""A stage on machines of a Ray cluster: on each of them one torchrun, on the saved job.

The folder of runs lies where every machine sees it. Ray ends what this command started once the
command is gone, and torchrun's processes end with the task that started them.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning_lab.config.hardware import RayConfig
from reasoning_lab.launch.torchrun import failure, log_of, rendezvous, torchrun
from reasoning_lab.types import UserError

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

log = logging.getLogger(__name__)

_POLL_S = 0.5
_PATIENCE_S = 60.0
_ANSWER_S = 10.0
# Until it is said that the cluster has no room.
_SILENT_S = 30.0
# Of the machine, not of the command.
_OWN_VARIABLES = ("CUDA_", "RAY_")


def check_ray(config: RayConfig) -> None:
    """Join the cluster, for as long as this process lives.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    if find_spec("ray") is None:
        raise UserError(
            "hardware.ray: the package 'ray' is not installed; run pip install "
            "'reasoning-lab[launchers]'"
        )
    import ray

    if ray.is_initialized():
        return
    named = config.address or os.environ.get("RAY_ADDRESS", "auto")
    try:
        if named != "auto":
            # Ray itself would wait for minutes.
            host, _, port = named.rpartition(":")
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        ray.init(address=config.address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"hardware.ray.address: no Ray cluster can be joined ({reason}); start one with "
            "`ray start --head`, run the command on one of its machines, or name its address"
        ) from error


def run_on_ray(
    config: RayConfig, name: str, nodes: int, processes: int, gpus: int, folder: Path
) -> str | None:
    """Do the job in `folder` in `processes` on each of `nodes` machines.

    Args:
        config: What is asked of Ray.
        name: The stage's.
        nodes: Machines.
        processes: On each of them.
        gpus: On each of them.
        folder: Seen by all of them under this name.

    Returns:
        What went wrong; None = nothing.

    Raises:
        UserError: No cluster can be joined.
    """
    check_ray(config)
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    needs = {"CPU": float(config.cpus_per_device * processes), "GPU": float(gpus)}
    needs = {key: value for key, value in (needs | config.resources).items() if value}
    with _machines(needs, nodes, name) as group:

        def on(node: int, function: Any, **more: Any) -> Any:
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
            return ray.remote(function).options(max_retries=0, scheduling_strategy=where, **more)

        address, port = ray.get(on(0, _free_address, num_cpus=0).remote())
        tasks = [
            on(node, _on_machine, num_cpus=needs["CPU"], num_gpus=gpus).remote(
                folder,
                Path.cwd(),
                rendezvous(nodes, node, processes, address, port),
                node,
                dict(os.environ),
            )
            for node in range(nodes)
        ]
        log.info("%s: on %d machines of the Ray cluster; logs are in %s", name, nodes, folder)
        wrong = _first_failure(tasks)
    return wrong and (failure(folder) or wrong)


@contextmanager
def _machines(needs: Mapping[str, float], nodes: int, name: str) -> Iterator["PlacementGroup"]:
    """So many machines that have what is needed, kept until the end."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(needs)] * nodes, strategy="STRICT_SPREAD")
    try:
        if not group.wait(_SILENT_S):
            log.info(
                "%s: waiting for %d machines of the Ray cluster, each with %s free",
                name,
                nodes,
                needs,
            )
            ray.get(group.ready())
        yield group
    finally:
        # Ends what still runs there.
        remove_placement_group(group)


def _first_failure(tasks: list[Any]) -> str | None:
    """See all end, the others soon after one has failed; what that one says, None = none has."""
    import ray

    running, wrong = tasks, None
    try:
        while running and wrong is None:
            ended, running = ray.wait(running)
            try:
                wrong = next(filter(None, ray.get(ended)), None)
            except ray.exceptions.RayError as error:
                wrong = f"a machine of the Ray cluster was lost ({type(error).__name__})"
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_PATIENCE_S)
    return wrong


def _free_address() -> tuple[str, int]:
    """Of the machine that runs this, and a port that nobody listens at."""
    import ray

    with socket.socket() as listener:
        listener.bind(("", 0))
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return address, listener.getsockname()[1]


def _on_machine(
    folder: Path, place: Path, options: list[str], node: int, variables: Mapping[str, str]
) -> str | None:
    """One machine's part of the job in `folder`.

    Args:
        folder: Of the saved job.
        place: The command's working directory.
        options: torchrun's.
        node: The machine's number.
        variables: The command's environment, for what the machine's own leaves open.

    Returns:
        What went wrong; None = nothing.
    """
    os.chdir(place)
    for key, value in variables.items():
        if not key.startswith(_OWN_VARIABLES):
            os.environ.setdefault(key, value)
    with torchrun(options, folder, log_of(folder, node)) as process:
        while process.poll() is None:
            time.sleep(_POLL_S)  # Ray interrupts between two statements alone.
    return f"the processes of machine {node} failed" if process.returncode else None
