"""Every `reasoning-lab` command of the pages names options and keys that exist."""

import re
import shlex
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from reasoning_lab.commands.compose import register_schemas
from reasoning_lab.commands.evaluate import as_recipe
from reasoning_lab.config.folder import CONF

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", CONF / "README.md", *sorted(ROOT.glob("experiments/*/README.md"))]
# They read files, or the store.
WITHOUT_RECIPE = ("audit", "rescore", "export", "convert")


def commands_of(page: Path) -> list[list[str]]:
    """Arguments of each command in the page's shell blocks that needs no file of the user."""
    text = page.read_text(encoding="utf-8")
    commands = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "reasoning-lab" in words and "--config-dir" not in line and "$" not in line:
                commands.append(words[words.index("reasoning-lab") + 1 :])
    return [command for command in commands if "my_rules" not in " ".join(command)]


def overrides_of(arguments: list[str]) -> list[str]:
    """One combination of what the command composes; swept values become their first."""
    is_sweep = arguments[:1] in (["plan"], ["report"], ["dashboard"]) or "-m" in arguments
    skipped = ("-", "hydra", "format=", "…", "job")
    words = [word for word in arguments if not word.startswith(skipped)]
    if words[:1] == ["evaluate"]:
        names = ["model=qwen3_0_6b" if word.startswith("model=") else word for word in words[1:]]
        return as_recipe(names, ["qwen3_0_6b"])
    words = words[words[:1] in (["plan"], ["report"], ["dashboard"]) :]
    if is_sweep:
        words = [re.sub(r"^([\w.@/+]+=[^\[{(,]+),.*$", r"\1", word) for word in words]
    return [re.sub(r"=tag\(.*", "=1e-4", word) for word in words]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_commands_of_a_page_compose(page: Path) -> None:
    register_schemas()
    for arguments in commands_of(page):
        if arguments[:1] and arguments[0] in WITHOUT_RECIPE:
            continue
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            hydra.compose("config", overrides=overrides_of(arguments))
