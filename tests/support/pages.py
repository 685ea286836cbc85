"""The pages of documentation: their commands, links and sentences."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("conf", "experiments", "notebooks", "reasoning_lab", "tests")
PAGES = [
    ROOT / "README.md",
    *sorted(
        page
        for folder in FOLDERS
        for page in (ROOT / folder).rglob("*.md")
        # What notebooks left is no page.
        if "runs" not in page.relative_to(ROOT).parts
    ),
]


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def shell_lines(page: Path) -> Iterator[list[str]]:
    """The words of each line of the page's bash blocks, continued lines joined."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def prose(page: Path) -> list[str]:
    """Sentences without code blocks, tables, pictures and headings; a `name` counts as one word."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$|^\|.*?$|^#.*?$|!\[[^]]*\]\([^)]*\)", "", text, flags=re.M | re.S)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))
    paragraphs = re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", text.replace("**", ""))
    return [
        " ".join(sentence.split())
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph)
        if re.search(r"[A-Za-z]", sentence)
    ]


def reading_ease(sentences: list[str]) -> float:
    """Flesch's formula (1948); a group of vowels is a syllable, a mute e at the end is none."""
    words = [word for s in sentences for word in re.findall(r"[A-Za-z]+", s)]
    syllables = sum(
        max(1, len(re.findall("[aeiouy]+", re.sub("(?<=[^aeioul])e$", "", word.lower()))))
        for word in words
    )
    return 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * syllables / len(words)
