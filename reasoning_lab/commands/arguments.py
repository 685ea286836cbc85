"""Command-line arguments of subcommands: `key=value` words, and overrides of the config."""

from collections.abc import Sequence
from pathlib import Path

from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.sweep import recipes, with_sweep
from reasoning_lab.config.hydra_errors import CONFIG_DIR_FLAGS
from reasoning_lab.types import UserError

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


def verifier_arguments(
    arguments: Sequence[str], remedy: str
) -> tuple[Path, str | None, RootConfig]:
    """Arguments of a subcommand that only verifies.

    Returns:
        `path`, `checker` or None, and the root config with all other overrides applied.

    Raises:
        UserError: `path` is missing; `remedy` is the message.
    """
    (path, checker), words = take_values(arguments, "path", "checker")
    if not path:
        raise UserError(remedy)
    (recipe,) = recipes(to_overrides(words))
    return Path(path), checker or None, recipe.root
