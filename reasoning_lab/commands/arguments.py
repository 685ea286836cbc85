"""Command-line arguments of subcommands: `key=value` words, and overrides of the config."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reasoning_lab.commands.sweep import recipes, with_sweep
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.hydra_errors import CONFIG_DIR_FLAGS
from reasoning_lab.config.identity import as_plain
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.types import UserError

# From a path, a checker, the verifier's limits and a folder to a result, a file and what dropped.
Verification = Callable[[Path, str | None, HardwareConfig, Path], tuple[Any, Path, Ledger]]
_MULTIRUN_FLAGS = ("-m", "--multirun")


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for one run per combination."""
    return any(word in _MULTIRUN_FLAGS for word in arguments)


def take_values(arguments: Sequence[str], *keys: str) -> tuple[list[str], list[str]]:
    """Split off the words `key=value` of `keys`.

    Returns:
        The value of each key, empty if it is not given, and the remaining words.
    """
    values = dict.fromkeys(keys, "")
    remaining = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if equals and key in values:
            values[key] = value
        else:
            remaining.append(word)
    return list(values.values()), remaining


def split_config_dir(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split off `--config-dir FOLDER`: the folder, None if not given, and the remaining words."""
    folder: str | None = None
    remaining: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, _, value = word.partition("=")
        if flag in CONFIG_DIR_FLAGS:
            folder = value or next(words, "")
        else:
            remaining.append(word)
    return folder, remaining


def config_dir_override(folder: str | Path) -> str:
    """The override that does what `--config-dir FOLDER` does.

    Raises:
        UserError: There is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--config-dir: there is no folder '{folder}'; check the path")
    return f"hydra.searchpath=[file://{Path(folder).absolute()}]"


def to_overrides(arguments: Sequence[str]) -> list[str]:
    """The overrides among `arguments`; `--config-dir` becomes the equivalent override.

    Raises:
        UserError: The arguments contain another flag of Hydra.
    """
    folder, words = split_config_dir(arguments)
    overrides = [] if folder is None else [config_dir_override(folder)]
    for word in words:
        if word.startswith("-") and word not in _MULTIRUN_FLAGS:
            raise UserError(f"{word}: only overrides and --config-dir can stand here; take it out")
        if word not in _MULTIRUN_FLAGS:
            overrides.append(word)
    return overrides


def to_sweep(arguments: Sequence[str]) -> list[str]:
    """The overrides among `arguments`; after `-m`, with those of the experiment's own sweep."""
    overrides = to_overrides(arguments)
    return with_sweep(overrides) if is_multirun(arguments) else overrides


def verified(
    arguments: Sequence[str], remedy: str, verify: Verification, folder: str, title: str
) -> None:
    """A subcommand that only verifies: it reads `path` and `checker`, and prints what came out.

    Args:
        arguments: `path=`, perhaps `checker=`, and overrides of the root config.
        remedy: What to say where `path` is missing.
        verify: Verifies what is at `path` and writes into the folder that it is given.
        folder: Below `paths.runs`; a new one is made there.
        title: What the written file has.
    """
    (path, checker), words = take_values(arguments, "path", "checker")
    if not path:
        raise UserError(remedy)
    (recipe,) = recipes(to_overrides(words))
    out_dir = timestamped_folder(Path(recipe.root.paths.runs) / folder)
    result, file, ledger = verify(Path(path), checker or None, recipe.root.hardware, out_dir)
    print(json.dumps(as_plain(result)))
    for sentence in [*ledger.lines(), f"{title}: {file}"]:
        print(sentence, file=sys.stderr)
