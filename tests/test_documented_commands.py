"""Every command of the pages names options, keys and targets that exist."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from reasoning_lab.cli import SUBCOMMANDS
from reasoning_lab.commands.evaluate import as_recipe
from tests.conftest import lab_here
from tests.support.composition import composed_config
from tests.support.pages import PAGES, ROOT, page_id, shell_lines

# They read files, or the store.
WITHOUT_RECIPE = ("audit", "rescore", "export", "convert", "reference", "store", "watch")
SWEPT = ("plan", "report", "dashboard")
# Its commands are mistakes, which `test_troubleshooting.py` makes.
MISTAKES = ROOT / "conf" / "TROUBLESHOOTING.md"
# Programs that are not ours.
OTHERS = {"pip", "vllm", "export", "source"}


def commands_of(page: Path) -> list[list[str]]:
    """Arguments of each `reasoning-lab` that needs no file of the user.

    Those with files are run by `test_readme.py` and `test_newcomer.py`.
    """
    lines = [words for words in shell_lines(page) if "reasoning-lab" in words]
    commands = [words[words.index("reasoning-lab") + 1 :] for words in lines]
    return [
        command
        for command in commands
        if not re.search(r"--config-dir|\$|my_\w+\.", " ".join(command))
    ]


def overrides_of(arguments: list[str]) -> list[str]:
    """One combination of what the command composes; swept values become their first."""
    subcommand = arguments[0] if arguments and arguments[0] in SUBCOMMANDS else ""
    is_sweep = subcommand in SWEPT or "-m" in arguments
    skipped = ("-", "hydra", "format=", "job", "path=", "outcomes=", "seeds=")
    first = 1 + (subcommand == "reproduce") if subcommand else 0
    words = [word for word in arguments[first:] if not word.startswith(skipped)]
    if subcommand == "evaluate":
        names = ["model=qwen3_0_6b" if word.startswith("model=") else word for word in words]
        return as_recipe(names, ["qwen3_0_6b"])
    if is_sweep:
        words = [re.sub(r"^([\w.@/+]+=[^\[{(,]+),.*$", r"\1", word) for word in words]
    return [re.sub(r"=tag\(.*", "=1e-4", word) for word in words]


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if page != MISTAKES], ids=page_id)
def test_the_commands_of_a_page_compose(page: Path) -> None:
    for arguments in commands_of(page):
        if arguments[:1] and arguments[0] in WITHOUT_RECIPE:
            continue
        composed_config(*overrides_of(arguments))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_what_reads_files_is_given_what_it_takes(page: Path) -> None:
    for name, *words in filter(None, commands_of(page)):
        if name in WITHOUT_RECIPE:
            takes = {argument.partition("=")[0] for argument in SUBCOMMANDS[name].takes}
            assert {word.partition("=")[0] for word in words} <= takes, words


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_other_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for line in shell_lines(page):
        words = [word for word in line if not re.match(r"[A-Z_]+=", word)]
        if not words or "reasoning-lab" in words or words[0] in OTHERS:
            continue
        program = words[0].rpartition("/")[2]
        if program == "make":
            assert words[1] in targets, words
        elif words[1] == "-m":
            assert find_spec(words[2]), words
        else:
            assert program == "python", words
            assert (ROOT / words[1]).is_file(), words


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_says_what_it_takes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here(name, "--help", cwd=tmp_path) == 0
    page = capsys.readouterr().out
    for argument, meaning in SUBCOMMANDS[name].takes.items():
        assert re.search(rf"^  {re.escape(argument)} +{re.escape(meaning)}$", page, re.M)
    assert page.endswith(f"Example:\n  {SUBCOMMANDS[name].example}\n")


def test_every_example_of_a_subcommand_takes_what_it_says() -> None:
    for name, subcommand in SUBCOMMANDS.items():
        program, word, *arguments = subcommand.example.split()
        assert (program, word) == ("reasoning-lab", name)
        if name in WITHOUT_RECIPE:
            takes = {argument.partition("=")[0] for argument in subcommand.takes}
            assert {argument.partition("=")[0] for argument in arguments} <= takes
