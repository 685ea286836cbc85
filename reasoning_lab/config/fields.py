"""What a structured config's fields declare: identity or placement, choices and bounds.

A field is identity unless it is declared with `placement`: identity decides what a result is and
enters its fingerprint; placement says where and how fast it is made and never does.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import MISSING

from reasoning_lab.types import UserError

T = TypeVar("T")

# Metadata of a mapping to which any key may be added, also without Hydra's `+`.
FREE_KEYS = {"free": True}

# Such a mapping that is identity only where it has a key, as `identity_of` has it.
FREE_KEYS_WHEN_SET = {**FREE_KEYS, "when_set": True}
# In place of a number of problems: as many as there are.
ALL = "all"
# In place of a number of tokens: as the documents need; see `data.tokens.automatic`.
AUTO = "auto"

# The largest seed that numpy and Lightning take.
MAX_SEED = 2**32 - 1


def placement(default: T, choices: Sequence[str] = ()) -> T:
    """Declare a field that changes no result: paths, devices, logging, micro-batches."""
    return dataclasses.field(default=default, metadata={"placement": True, "choices": choices})


def choice(*choices: str, when_set: bool = False) -> Any:
    """Declare a field that takes one of `choices`, the first by default.

    `when_set`: it is identity only where it is not the default, as `identity_of` has it.
    """
    metadata = {"choices": choices, "when_set": when_set}
    return dataclasses.field(default=choices[0], metadata=metadata)


def at_least(least: int, *words: str) -> Any:
    """Declare a number without a default that is `least` or more, or one of `words`."""
    return number(MISSING, least=least, words=words)


def number(
    default: float | None,
    least: float | None = None,
    most: float | None = None,
    placement: bool = False,
    when_set: bool = False,
    words: Sequence[str] = (),
) -> Any:
    """Declare a number with a default and bounds, both allowed; null has none.

    `when_set`: it is identity only where it is not the default, as `identity_of` has it.
    `words`: Texts that may take the number's place, such as `all`.
    """
    metadata: dict[str, Any] = {"least": least, "most": most, "words": words}
    metadata |= {"placement": placement, "when_set": when_set}
    return dataclasses.field(default=default, metadata=metadata)


def fraction(default: float | None) -> Any:
    """Declare a number from 0 to 1."""
    return number(default, least=0.0, most=1.0)


def check_values(value: Any, key: str = "") -> None:
    """Hold a typed config against what its fields declare.

    Raises:
        UserError: For a key that the schema lacks (Hydra's `+` lets it through), a value that
            is not among the choices, or a number that is out of bounds.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        declared = {item.name: item.metadata for item in dataclasses.fields(value)}
        for name, content in vars(value).items():
            where = f"{key}.{name}".lstrip(".")
            if name not in declared:
                names = ", ".join(declared)
                raise UserError(f"{where}={content}: there is no such key; choose among {names}")
            if content is None:
                continue
            choices, least, most = (declared[name].get(key) for key in ("choices", "least", "most"))
            words = declared[name].get("words")
            if words and not isinstance(content, int):
                if content not in words:
                    kinds = " or ".join(["an integer", *words])
                    raise UserError(
                        f"{where}={content}: '{content}' is not an integer; give {kinds}"
                    )
                continue
            if choices and content not in choices:
                listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
                raise UserError(f"{where}: '{content}' is unknown; choose {listed}")
            if least is not None and content < least:
                raise UserError(f"{where}: {content} is too small; give {least} or more")
            if most is not None and content > most:
                raise UserError(f"{where}: {content} is too large; give {most} or less")
            check_values(content, where)
    elif isinstance(value, Mapping):
        for name, content in value.items():
            check_values(content, f"{key}.{name}".lstrip("."))
