"""Policies pushed to a hub as soon as they are made, by the real client."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from reasoning_lab.commands.publish import Publisher, check_publish
from reasoning_lab.config.publish import PublishConfig
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, lab_here
from tests.support.upload_hub import UploadHub, upload_hub

TOKEN = "hf_" + "a" * 34


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """The hub of this process, with a token; the tests' other files stay offline."""
    with upload_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_run_pushes_each_policy_that_it_made_or_found(
    hub: UploadHub, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So the same command pushes again what failed; nothing is left to train here."""
    shutil.copytree(smoke_run / "runs" / "store", tmp_path / "runs" / "store")
    wanted = ["publish.repository=me/tiny", "publish.stages=[dpo,rl]"]
    assert lab_here(*SMOKE, *wanted, cwd=tmp_path) == 0
    assert hub.visibility == {"me/tiny-dpo": "private", "me/tiny-rl": "private"}
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"}
    (policy,) = (tmp_path / "runs" / "store" / "rl").glob("*/artifact.json")
    record = Record.read(policy.parent)
    assert hub.commits[1:] == [("me/tiny-rl", f"rl {record.fingerprint}")]
    files = hub.files["me/tiny-rl"]
    internal = {"history.parquet", "prompt_ids.txt", "artifact.json"}
    assert files.keys() == {*record.files, "README.md"} - internal
    for name in files.keys() - {"README.md"}:
        assert files[name] == (record.path / name).read_bytes()
    assert "| rl | heldout |" in files["README.md"].decode()
    assert f"rl: published, {hub.url}/me/tiny-rl" in capsys.readouterr().out


def test_card_is_sent_again_once_there_are_evaluations(hub: UploadHub, tmp_path: Path) -> None:
    sampling = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 9}
    config = {"benchmark_name": "aime24", "benchmark": {"sampling": sampling}}

    def build(kind: str, **about: Any) -> Callable[[Path, Path], Metadata]:
        def fill(out_dir: Path, work_dir: Path) -> Metadata:
            (out_dir / "file").write_text(kind)
            identity = {"config": config, "groups": {}}
            return Metadata(kind=kind, identity=identity, seed=0, **about)

        return fill

    store = Store(tmp_path / "store")
    policy, _ = store.obtain("sft", "a" * 16, build("policy", inputs={}))
    publisher = Publisher(PublishConfig("me/tiny"))
    publisher.publish("sft", policy)
    publisher.update_cards()
    assert len(hub.commits) == 1
    result = {"pass@1": 0.25, "ci95": [0.0, 0.5], "n": 30, "samples": 3}
    evaluation = build("evaluation", inputs={"policy": "a" * 16}, metrics=result)
    store.obtain("evaluate", "b" * 16, evaluation)
    publisher.update_cards()
    assert hub.commits[1:] == [("me/tiny-sft", "Evaluations")]
    assert "| sft | aime24 | 25.0% |" in hub.files["me/tiny-sft"]["README.md"].decode()


def test_hub_that_refuses_costs_a_warning(
    hub: UploadHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.refuses = True
    publisher = Publisher(PublishConfig("me/tiny"))
    assert publisher.publish("sft", record_of(tmp_path, "policy")) is None
    assert "sft was not published at me/tiny-sft (" in caplog.text
    assert TOKEN not in caplog.text
    publisher.update_cards()
    assert hub.commits == []


def record_of(folder: Path, kind: str, files: Any = None) -> Record:
    return Record(
        path=folder,
        stage="sft",
        fingerprint="0" * 16,
        files=files or {},
        kind=kind,
        identity={"groups": {}, "config": {}},
        inputs={},
        seed=0,
    )


def test_only_policies_of_the_named_stages_are_pushed(hub: UploadHub, tmp_path: Path) -> None:
    publisher = Publisher(PublishConfig("me/tiny", stages=["sft"], private=False))
    assert publisher.publish("distill", record_of(tmp_path, "corpus")) is None
    assert publisher.publish("dpo", record_of(tmp_path, "policy")) is None
    assert Publisher(PublishConfig()).publish("sft", record_of(tmp_path, "policy")) is None
    assert hub.commits == []
    (tmp_path / "last").mkdir()
    for name in ("model.safetensors", "last/model.safetensors"):
        (tmp_path / name).write_bytes(b"weights")
    files = {"model.safetensors": None, "last/model.safetensors": None}
    assert publisher.publish("sft", record_of(tmp_path, "policy", files)) is not None
    assert hub.files["me/tiny-sft"].keys() == {"model.safetensors", "README.md"}
    assert hub.visibility["me/tiny-sft"] == "public"


def test_what_cannot_be_published_is_refused_beforehand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policies = ["sft", "dpo"]
    check_publish(PublishConfig(), policies)
    for config, sentence in [
        (PublishConfig("me/x", ["prefer"]), r"publish\.stages: no stage 'prefer' .* sft, dpo"),
        (PublishConfig("me/x y"), r"publish\.repository=me/x y: the hub takes no 'me/x y-sft'"),
        (PublishConfig("tiny"), r"publish\.repository=tiny: it names no owner"),
    ]:
        with pytest.raises(UserError, match=sentence):
            check_publish(config, policies)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "/nonexistent")
    with pytest.raises(UserError, match=r"publish\.repository=me/x: HF_TOKEN is not set"):
        check_publish(PublishConfig("me/x"), policies)
