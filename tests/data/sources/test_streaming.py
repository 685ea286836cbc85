"""A streamed dataset, from a stand-in for the hub that cuts connections, and a killed reader."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

from reasoning_lab.data.sources.hub import hub_rows
from tests.support.hub import DATASET, REVISION, StandInHub, online, stand_in_hub
from tests.support.sources import write_lines

_READ = f"""
import json, logging
from reasoning_lab.data.sources.hub import hub_rows
splits = {{"train": "train"}}
rows = hub_rows("{DATASET}", None, "{REVISION}", splits, True, None, None, "it", ["prompt"])
for row in rows:
    print(json.dumps([row.content, row.name, row.columns]), flush=True)
"""
_FILES, _ROWS = 6, 50


def reader(hub: StandInHub, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_CACHE": str(home / "datasets")}
    return subprocess.Popen(
        [sys.executable, "-c", _READ], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_only_the_first_rows_are_asked_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for number in range(9):
        prompts = [{"prompt": f"{number}.{row}?", "gold": "1"} for row in range(20)]
        write_lines(folder / f"train-{number}.jsonl", prompts)
    with stand_in_hub(folder) as hub, online(hub.url, tmp_path):
        splits = {"train": "train"}
        rows = list(hub_rows(DATASET, None, REVISION, splits, False, None, 25, "it", ["prompt"]))
        # `datasets` looks a file ahead.
        assert set(hub.requested) <= {f"train-{number}.jsonl" for number in range(4)}
    assert [row.content for row in rows if isinstance(row.content, dict)] == [
        {"prompt": f"{n // 20}.{n % 20}?"} for n in range(25)
    ]


def test_a_killed_reader_goes_on_with_the_files_that_it_lacks(tmp_path: Path) -> None:
    folder, home = tmp_path / "dataset", tmp_path / "home"
    folder.mkdir()
    prompts = [[f"{file} plus {row}?" for row in range(_ROWS)] for file in range(_FILES)]
    for number, texts in enumerate(prompts):
        rows = [{"prompt": text, "unused": "x" * 500} for text in texts]
        write_lines(folder / f"train-{number}.jsonl", rows)
    with stand_in_hub(folder) as hub:
        late = hub.waits["train-2.jsonl"] = Event()
        hub.cut_off = {"train-0.jsonl", "train-3.jsonl"}
        with reader(hub, home) as killed:
            # The others are read while the third is awaited.
            deadline = time.monotonic() + 120
            while len(tables := list(home.rglob("*.arrow"))) < _FILES - 1:
                assert time.monotonic() < deadline
                assert killed.poll() is None
                time.sleep(0.05)
            # Their rows are there up to those of the third.
            early = [killed.stdout.readline() for _ in range(2 * _ROWS)] if killed.stdout else []
            killed.kill()
        assert not hub.cut_off
        assert "00002" not in {table.stem for table in tables}
        late.set()
        hub.requested.clear()
        with reader(hub, home) as process:
            output, _ = process.communicate(timeout=120)
        # Columns are known from the start of the first file.
        assert set(hub.requested) == {"train-0.jsonl", "train-2.jsonl"}
    assert early == output.splitlines(keepends=True)[: 2 * _ROWS]
    columns = ["prompt", "unused"]
    assert [json.loads(line) for line in output.splitlines()] == [
        [{"prompt": text}, f"{DATASET} (train), row {number}", columns]
        for number, text in enumerate((text for texts in prompts for text in texts), start=1)
    ]
