"""Imports as large as torch, which stay until their process ends."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Keep Python's collector from the objects that the imports within make, then and later.

    It would look through all of them, a million in the end, again and again: while they are
    made, at every later collection, and when the process ends.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Where nothing was imported, what is frozen would be the caller's own, for ever.
        if len(sys.modules) > before:
            gc.freeze()
            # Or its nanobind prints of leaks at the end, which a collection there would find.
            if "triton" in sys.modules:
                atexit.register(gc.unfreeze)
        gc.enable()
