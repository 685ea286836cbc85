"""The subcommand `evaluate`: runs a recipe without stages that evaluates one model."""

import re
from collections.abc import Sequence
from pathlib import Path

from reasoning_lab.commands import hydra_app
from reasoning_lab.commands.arguments import split_config_dir, take_values
from reasoning_lab.commands.root_config import PathsConfig
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.hydra_errors import hydra_quoted
from reasoning_lab.types import UserError

_FINGERPRINT = re.compile(r"[0-9a-f]{6,16}")


def main(arguments: Sequence[str]) -> None:
    """`model=X`, `benchmark=[Y]` and other overrides, also of a multirun."""
    config_dir, words = split_config_dir(arguments)
    # Hydra takes flags before or after the overrides, not between them.
    flags = [] if config_dir is None else ["--config-dir", config_dir]
    hydra_app.main([*flags, *as_recipe(words, model_options(config_dir))])


def model_options(config_dir: str | None) -> list[str]:
    """Names of the options of conf/model, and of the user's own folder."""
    config_dirs = [CONF, *([] if config_dir is None else [Path(config_dir)])]
    return sorted(file.stem for path in config_dirs for file in (path / "model").glob("*.yaml"))


def as_recipe(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """The overrides that evaluate the model of `model=`; see `with_model`.

    Raises:
        UserError: `model=` is missing, or there is no such model.
    """
    if not take_values(arguments, "model")[0][0]:
        raise UserError(
            "evaluate: name what to evaluate, as in evaluate model=FOLDER benchmark=[math500]"
        )
    remedy = "check it, or add engine=openai for a server's model"
    return ["recipe=evaluate", *with_model(arguments, options, remedy)]


def with_model(
    arguments: Sequence[str], options: Sequence[str], remedy: str = "check it"
) -> list[str]:
    """The overrides with that of `model=` as an option and its path.

    Args:
        arguments: Overrides with `model=`, which is an option of the group, a folder, a hub id,
            the first digits of a stored policy's fingerprint, or a server's name for its model
            (engine=openai). A multirun takes several, separated by commas.
        options: Names of the group's options.
        remedy: What to do where there is no such model.

    Raises:
        UserError: There is no such model.
    """
    (model,), others = take_values(arguments, "model")
    if model in options:
        return [f"model={model}", *others]
    (runs, engine), _ = take_values(others, "paths.runs", "engine")
    store = Path(runs or PathsConfig().runs) / "store"
    names = model.split(",")
    paths = [name if engine == "openai" else _path(name, store, options, remedy) for name in names]
    model_path = ",".join(hydra_quoted(path) for path in paths)
    return ["model=checkpoint", f"model.path={model_path}", *others]


def _path(name: str, store: Path, options: Sequence[str], remedy: str) -> str:
    if Path(name).is_dir():
        return name
    if (stored := stored_policy(name, store)) is not None:
        return str(stored)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return name
    raise UserError(
        f"model={name}: no folder, no fingerprint's first 6 to 16 digits, no hub id (owner/name) "
        f"and none of {', '.join(options)}; {remedy}"
    )


def stored_policy(name: str, store: Path) -> Path | None:
    """The folder of the stored policy whose fingerprint starts with `name`; None = none can.

    Raises:
        UserError: The store has no such policy, or several.
    """
    if not _FINGERPRINT.fullmatch(name):
        return None
    candidates = sorted(config.parent for config in store.glob(f"*/{name}*/config.json"))
    # A damaged artifact that was set aside has another name.
    folders = [folder for folder in candidates if _FINGERPRINT.fullmatch(folder.name)]
    if len(folders) == 1:
        return folders[0]
    if folders:
        raise UserError(
            f"model={name}: several policies in '{store}' have a fingerprint that begins with "
            f"'{name}'; give more of it"
        )
    raise UserError(
        f"model={name}: no policy in '{store}' has a fingerprint that begins with '{name}'"
    )
