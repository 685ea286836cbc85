"""Two processes in a process group, each of which calls one function."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

Result = TypeVar("Result")


def on_two_ranks(function: Callable[[Path], Result], folder: Path) -> list[Result]:
    """What `function`, a module's own, returns on rank 0 and on rank 1; `folder` is empty."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as ranks:
        return list(ranks.map(_call, [function] * 2, range(2), [folder] * 2))


def _call(function: Callable[[Path], Result], rank: int, folder: Path) -> Result:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=100),
    )
    try:
        return function(folder)
    except BaseException:
        # The pool ends the other rank too, which would wait for this one.
        traceback.print_exc()
        os._exit(1)
