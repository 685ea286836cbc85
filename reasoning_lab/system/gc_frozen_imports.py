"""Keeps large imports such as torch out of garbage collection: they stay until the process ends."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_frozen_imports() -> Iterator[None]:
    """Freeze the objects that imports inside this context create.

    torch alone creates about a million objects. The collector would scan all of them during the
    import, at every later full collection, and when the process ends.
    """
    modules_before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Without a new module, freezing would only make the caller's own objects immortal.
        if len(sys.modules) > modules_before:
            gc.freeze()
            # Triton's nanobind reports leaks unless the final collection sees its objects.
            if "triton" in sys.modules:
                atexit.register(gc.unfreeze)
        gc.enable()
