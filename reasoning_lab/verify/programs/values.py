"""What the process of a program and the process of its tests say to each other.

A message is JSON behind its length. A value crosses as data: None, bool, int, float, complex, str,
bytes, list, tuple, set, frozenset, dict, range, these types, and what an iterator yields. A
subclass crosses as its base: a Counter as a dict, a named tuple as a tuple. Whatever else a program
returns stays with it, and the tests get a reference. So nothing is unpickled, and no code crosses.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

MAX_MESSAGE_BYTES = 4 * 2**20
# The name of the type, and how its value is written; a list and the types of JSON have no name.
TUPLE, SET, FROZENSET, DICT, ITERATOR = "tuple", "set", "frozenset", "dict", "iterator"
INT, COMPLEX, BYTES, RANGE, OBJECT = "int", "complex", "bytes", "range", "object"
TYPE = "type"
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range)
}
_MAX_ITEMS = 10_000
_SIZE = struct.Struct("=I")
# JSON's parser refuses integers of many digits, so large ones are written in base 16.
_LARGE = 2**63


class MessageError(Exception):
    """What came from the other process is no message, or none came because it ended."""


class TooLargeError(ValueError):
    """A value takes more bytes than a message may have."""


def send(descriptor: int, content: Any) -> None:
    """Write one message.

    Raises:
        TooLargeError: It has more than MAX_MESSAGE_BYTES.
    """
    body = json.dumps(content).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise TooLargeError(f"a value of {len(body):,} bytes; {MAX_MESSAGE_BYTES:,} are allowed")
    write_all(descriptor, _SIZE.pack(len(body)) + body)


def receive(descriptor: int) -> Any:
    """Read one message.

    Raises:
        MessageError: The other process ended, or wrote something else.
    """
    header = read_exactly(descriptor, _SIZE.size)
    if not header:
        raise MessageError("the process ended")
    (size,) = _SIZE.unpack(header)
    if size > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {size:,} bytes")
    try:
        return json.loads(read_exactly(descriptor, size))
    except (ValueError, RecursionError) as error:
        raise MessageError("a message that is not JSON") from error


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read `size` bytes and not one more; the result is empty when the pipe is closed."""
    parts = []
    while size and (part := os.read(descriptor, min(size, 2**16))):
        parts.append(part)
        size -= len(part)
    return b"" if size else b"".join(parts)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`, however often the pipe is full."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def to_json(value: Any, refer: Callable[[Any], Any]) -> Any:
    """Return the JSON of a value.

    Args:
        value: Any value.
        refer: Returns the JSON of an object that is no data, or raises.
    """
    if value is None or value is True or value is False or isinstance(value, str | float):
        return value
    if isinstance(value, int):
        return value if -_LARGE < value < _LARGE else {INT: hex(value)}
    if isinstance(value, list):
        return [to_json(item, refer) for item in value]
    for kind, name in ((tuple, TUPLE), (set, SET), (frozenset, FROZENSET)):
        if isinstance(value, kind):
            return {name: [to_json(item, refer) for item in value]}
    if isinstance(value, dict):
        pairs = value.items()
        return {DICT: [[to_json(key, refer), to_json(item, refer)] for key, item in pairs]}
    if isinstance(value, complex):
        return {COMPLEX: [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {BYTES: value.hex()}
    if isinstance(value, type) and value in _TYPES.values():
        return {TYPE: value.__name__}
    if isinstance(value, range):
        return {RANGE: [value.start, value.stop, value.step]}
    if isinstance(value, Iterator):
        # One more item says that there are too many.
        return {ITERATOR: [to_json(item, refer) for item in islice(value, _MAX_ITEMS + 1)]}
    return refer(value)


def from_json(content: Any, dereference: Callable[[int], Any]) -> Any:
    """Return the value of a JSON, which may be hostile.

    Args:
        content: What `json.loads` returned.
        dereference: Returns the object that a number refers to.

    Raises:
        MessageError: It is no JSON of a value.
    """
    try:
        return _from_json(content, dereference)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise MessageError(f"a message that is no value ({error})") from error


def _from_json(content: Any, dereference: Callable[[int], Any]) -> Any:
    if isinstance(content, list):
        return [_from_json(item, dereference) for item in content]
    if not isinstance(content, dict):
        return content
    ((name, body),) = content.items()
    if name == DICT:
        return {_from_json(k, dereference): _from_json(v, dereference) for k, v in body}
    if name == INT:
        return int(body, 16)
    if name == COMPLEX:
        return complex(*body)
    if name == BYTES:
        return bytes.fromhex(body)
    if name == RANGE:
        return range(*body)
    if name == TYPE:
        return _TYPES[body]
    if name == OBJECT:
        return dereference(int(body))
    items = [_from_json(item, dereference) for item in body]
    if name == ITERATOR:
        return _first_items(items)
    return {TUPLE: tuple, SET: set, FROZENSET: frozenset}[name](items)


def _first_items(items: list[Any]) -> Iterator[Any]:
    yield from items[:_MAX_ITEMS]
    if len(items) > _MAX_ITEMS:
        raise TooLargeError(f"an iterator of more than {_MAX_ITEMS:,} items")
