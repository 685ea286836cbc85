"""Each mistake of the page is made, and ends with the very message that the page shows."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import lab_here
from tests.support.pages import ROOT

PAGE = (ROOT / "conf" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
MISTAKES = re.findall(r"^```bash\n(.+?)\n```\n\n```text\n(.+?)\n```$", PAGE, re.M | re.S)
# What `lab_here` adds to the command.
ADDED = " hydra/job_logging=none"


def test_there_are_fifteen() -> None:
    assert len(MISTAKES) == len(re.findall(r"^## ", PAGE, re.M)) == 15


@pytest.mark.parametrize(("command", "message"), MISTAKES)
def test_a_mistake_ends_with_its_message(
    command: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"What is {n} + 4?", "gold": str(n + 4)} for n in range(600)]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "problems.jsonl").write_text(lines, encoding="utf-8")
    solved = [{**row, "solution": rf"It is \boxed{{{row['gold']}}}."} for row in rows]
    solved[7]["gold"] = "11, see above"
    lines = "\n".join(json.dumps(row) for row in solved)
    (tmp_path / "solved.jsonl").write_text(lines, encoding="utf-8")
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    assert program == "reasoning-lab"
    capsys.readouterr()
    assert lab_here(*arguments, cwd=tmp_path) == 2
    printed = capsys.readouterr().err.strip().replace(ADDED, "")
    assert " ".join(printed.split()) == " ".join(message.split())
    assert not (tmp_path / "runs" / "store").exists()
