"""What the C library does with large blocks that are freed: kept for the next step, or given back.

A training step on a CPU asks for the same activations over and over. What is kept needs no fault
for each of its pages again, a sixth of a small model's step; but blocks of other sizes find no
place in it, and a large model's peak grows by half. Only glibc has the switch; elsewhere nothing
happens here.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST_KEPT_WEIGHTS_BYTES = 2**28
# Between a large model's activations and what decoding asks for at every token.
_GIVEN_BACK_BYTES = 2**22
_GLIBC_TRIM_BYTES = 2**17
_LIBC = ctypes.CDLL(None)


def give_back() -> None:
    """From now on, blocks as large as an activation are returned as soon as they are freed."""
    _set(_GIVEN_BACK_BYTES, _GLIBC_TRIM_BYTES)


@contextmanager
def training(weights_bytes: int) -> Iterator[None]:
    """While a model of so many bytes trains: what is freed is kept if it is small."""
    if weights_bytes > _MOST_KEPT_WEIGHTS_BYTES:
        give_back()
    else:
        _set(2**30, 2**31 - 1)
    try:
        yield
    finally:
        give_back()
        if hasattr(_LIBC, "malloc_trim"):
            _LIBC.malloc_trim(0)


def _set(mmap_bytes: int, trim_bytes: int) -> None:
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_THRESHOLD, mmap_bytes)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, trim_bytes)
