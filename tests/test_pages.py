"""The pages: short, plain, linked from one table of contents, and every link and name exists."""

import re
from pathlib import Path

import pytest

from tests.support.composition import composed_config
from tests.support.pages import PAGES, ROOT, page_id, prose, reading_ease, shell_lines

README = ROOT / "README.md"
METHODS = ROOT / "reasoning_lab" / "METHODS.md"
# One screen, and a few lines more where a room shows the files of a part of your own.
SCREEN, WITH_FILES = 45, 48
# The house's README follows three ways through the code, that of data shows a family of problems,
# and that of losses has a table of methods.
LONGER = {"reasoning_lab": 75, "data": 75, "losses": 75}


def links(page: Path) -> list[str]:
    text = re.sub(
        r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    return [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if not link.startswith(("http://", "https://"))
    ]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_plain() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 200
    sentences = prose(README)
    assert [s for s in sentences if len(s.split()) > 25] == []
    assert reading_ease(sentences) > 50


def test_what_the_readme_shows_was_printed() -> None:
    """The page of the experiment has the same lines, with the command and the commit."""
    (printed,) = re.findall(
        r"^```text\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S
    )
    assert len(printed.splitlines()) == 10
    page = ROOT / "experiments" / "001_tiny_recipe" / "README.md"
    assert printed in page.read_text(encoding="utf-8")


def test_reading_ease_by_hand() -> None:
    """2 sentences, 9 words, 11 syllables: 206.835 - 1.015 * 4.5 - 84.6 * 11 / 9."""
    assert reading_ease(["The cat sat on a table.", "It was happy."]) == pytest.approx(
        206.835 - 1.015 * 4.5 - 84.6 * 11 / 9
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    reached, pending = set(), [README]
    while pending:
        page = pending.pop()
        if page not in reached:
            reached.add(page)
            targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
            pending += [target for target in targets if target.suffix == ".md"]
    assert [page_id(page) for page in PAGES if page not in reached] == []


def test_the_readme_of_a_folder_is_a_screen() -> None:
    for page in PAGES:
        is_write_up = page.parent.parent.name == "experiments"
        if page.name == "README.md" and page != README and not is_write_up:
            text = page.read_text(encoding="utf-8")
            most = WITH_FILES if " of your own\n" in text else SCREEN
            most = LONGER.get(page.parent.name, most)
            assert len(text.splitlines()) <= most, page_id(page)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_command_is_complete(page: Path) -> None:
    for words in shell_lines(page):
        assert not re.search(r"…|\.\.\.", " ".join(words)), words


def rows_of_methods() -> list[list[str]]:
    lines = METHODS.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in rows if len(row) > 1 and row[0] != "method" and ":--" not in row[0]]


def test_every_method_names_a_test_that_exists() -> None:
    rows = rows_of_methods()
    assert len(rows) > 35
    for row in rows:
        path, _, name = row[-2].strip("`").partition(":")
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), row[-2]


@pytest.mark.long
def test_the_option_of_every_method_composes() -> None:
    for row in rows_of_methods():
        option = row[-3].strip("`")
        composed_config(*([option.strip("'")] if option.startswith("'") else option.split()))
