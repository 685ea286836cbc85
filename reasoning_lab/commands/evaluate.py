"""What `reasoning-lab evaluate` asks for, as overrides of a recipe without stages."""

import re
from collections.abc import Sequence
from pathlib import Path

from reasoning_lab.config.hydra_errors import hydra_quoted
from reasoning_lab.types import UserError

_FINGERPRINT = re.compile(r"[0-9a-f]{6,16}")
_MODEL, _RUNS, _ENGINE = "model=", "paths.runs=", "engine="


def as_recipe(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """The overrides that evaluate the model which `model=` names.

    Args:
        arguments: Overrides, `model=` among them: an option of the group, a folder, a hub id, the
            fingerprint of a policy in the store or its beginning, or the name that a server has
            for it (engine=openai); several with commas between them in a multirun.
        options: Names of the group's options.

    Raises:
        UserError: There is no `model=`, or what it names cannot be found.
    """
    named = [word.removeprefix(_MODEL) for word in arguments if word.startswith(_MODEL)]
    if not named:
        raise UserError(
            "evaluate: name what to evaluate, as in evaluate model=FOLDER benchmark=[math500]"
        )
    rest = [word for word in arguments if not word.startswith(_MODEL)]
    if named[-1] in options:
        return ["recipe=evaluate", f"{_MODEL}{named[-1]}", *rest]
    runs = [word.removeprefix(_RUNS) for word in arguments if word.startswith(_RUNS)]
    store = Path(*runs[-1:] or ["runs"]) / "store"
    engines = [word.removeprefix(_ENGINE) for word in arguments if word.startswith(_ENGINE)]
    at_server = engines[-1:] == ["openai"]
    paths = [name if at_server else _path(name, store, options) for name in named[-1].split(",")]
    chosen = ",".join(hydra_quoted(path) for path in paths)
    return ["recipe=evaluate", "model=checkpoint", f"model.path={chosen}", *rest]


def _path(name: str, store: Path, options: Sequence[str]) -> str:
    if Path(name).is_dir():
        return name
    if (stored := stored_policy(name, store)) is not None:
        return str(stored)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return name
    raise UserError(
        f"model={name}: no folder, no policy's fingerprint, no hub id (owner/name) and none of "
        f"{', '.join(options)}; check it, or add engine=openai for a server's model"
    )


def stored_policy(name: str, store: Path) -> Path | None:
    """The artifact folder of the policy whose fingerprint begins so; None = `name` is none.

    Raises:
        UserError: The store has no such policy, or several.
    """
    if not _FINGERPRINT.fullmatch(name):
        return None
    found = sorted(folder.parent for folder in store.glob(f"*/{name}*/config.json"))
    if len(found) == 1:
        return found[0]
    what = "several policies" if found else "no policy"
    raise UserError(f"model={name}: {what} in '{store}' begin so; give more of its fingerprint")
