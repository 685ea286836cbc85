"""How the C library treats large freed blocks: it keeps them, or returns them to the system.

A training step on a CPU allocates the same activations over and over. Blocks that are kept need no
new page faults, which saves a sixth of a small model's step. But blocks of other sizes do not fit
into them, and a large model's peak memory grows by half. Only glibc has this switch; elsewhere
nothing happens here.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
_SMALL_MODEL_BYTES = 2**28
# Between a large model's activations and the blocks that decoding allocates at every token.
_RETURNED_BLOCK_BYTES = 2**22
_GLIBC_TRIM_BYTES = 2**17
_LIBC = ctypes.CDLL(None)


def return_freed_blocks() -> None:
    """From now on, blocks as large as an activation are returned as soon as they are freed."""
    _set_thresholds(_RETURNED_BLOCK_BYTES, _GLIBC_TRIM_BYTES)


@contextmanager
def tuned_for_training(weights_bytes: int) -> Iterator[None]:
    """While a model of `weights_bytes` trains, freed blocks are kept if the model is small."""
    if weights_bytes > _SMALL_MODEL_BYTES:
        return_freed_blocks()
    else:
        _set_thresholds(2**30, 2**31 - 1)
    try:
        yield
    finally:
        return_freed_blocks()
        if hasattr(_LIBC, "malloc_trim"):
            _LIBC.malloc_trim(0)


def mallopt(parameter: int, value: int) -> None:
    """Set one of glibc's malloc parameters; does nothing where the C library has no `mallopt`."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(parameter, value)


def _set_thresholds(mmap_bytes: int, trim_bytes: int) -> None:
    mallopt(M_MMAP_THRESHOLD, mmap_bytes)
    mallopt(M_TRIM_THRESHOLD, trim_bytes)
