import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_python(*arguments: str, cwd: Path, **environment: str) -> str:
    """Standard output of a fresh interpreter, which must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds, far from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run_python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_wheel_carries_every_config_file(installed: Path) -> None:
    def names(conf: Path) -> set[str]:
        return {path.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")}

    shipped = names(installed / "reasoning_lab" / "conf")
    assert shipped
    assert shipped == names(ROOT / "conf")


def test_wheel_carries_what_the_reports_page_is_made_of(installed: Path) -> None:
    ours = ROOT / "reasoning_lab" / "report" / "assets"
    theirs = installed / "reasoning_lab" / "report" / "assets"
    names = sorted(path.name for path in ours.iterdir())
    assert "TEMML_LICENSE" in names
    assert sorted(path.name for path in theirs.iterdir()) == names


def test_wheel_carries_the_layouts_of_datasets(installed: Path) -> None:
    place = Path("reasoning_lab/data/sources/layouts.jsonl")
    assert (installed / place).read_bytes() == (ROOT / place).read_bytes()


def test_installed_wheel_composes_the_default_recipe_anywhere(
    installed: Path, tmp_path: Path
) -> None:
    path = {"PYTHONPATH": str(installed)}
    path_printed = run_python(
        "-c", "import reasoning_lab as r; print(r.__file__)", cwd=tmp_path, **path
    )
    assert Path(path_printed.strip()).is_relative_to(installed)
    composed = run_python("-m", "reasoning_lab", "--cfg", "job", cwd=tmp_path, **path)
    assert "stages:" in composed


PLANNING = [
    *("cli", "commands.compose", "commands.plan", "commands.root_config", "types"),
    *("graph.recipe", "graph.run", "graph.store"),
    *("commands.watch", "report.server", "tracking.trackers"),
    *("stages.rl.stage", "stages.midtrain.stage", "evaluate.stage", "models.policy_artifact"),
]


def test_planning_imports_no_torch(tmp_path: Path) -> None:
    printed = run_python(
        "-c",
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(f'reasoning_lab.{module}')\n"
        "    heavy = {'torch', 'pytorch_lightning', 'transformers'} & sys.modules.keys()\n"
        "    assert not heavy, (module, heavy)\n"
        "print('imported')",
        *PLANNING,
        cwd=tmp_path,
        PYTHONPATH=str(ROOT),
    )
    assert printed.strip() == "imported"


def test_the_house_names_only_what_exists() -> None:
    house = ROOT / "reasoning_lab"
    text = (house / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (house / link).is_file(), link
    names = re.findall(r"`([\w/]+)\.py(?::([\w.]+))?`", text)
    assert len(names) > 30
    for path, name in names:
        if path.startswith("tests/"):
            assert (ROOT / f"{path}.py").is_file(), path
            continue
        value = importlib.import_module(f"reasoning_lab.{path.replace('/', '.')}")
        for part in filter(None, name.split(".")):
            value = getattr(value, part)


def test_every_folder_has_a_readme_of_a_screen() -> None:
    folders = [path.parent for path in (ROOT / "reasoning_lab").glob("*/__init__.py")]
    for folder in folders:
        assert (folder / "README.md").is_file(), folder
