"""The most tokens of a completion, by the documents that a policy was trained on."""

from pathlib import Path

from reasoning_lab.graph.record import Metadata
from reasoning_lab.graph.store import Store
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.training.completion_limit import completion_limit


def policy(store: Store, name: str, held: int | None, source: str | None = None) -> str:
    """A policy of `store` whose documents have `held` tokens; its folder's name."""
    table = {"50%": 1, "90%": 1, "99%": held, "longest": 9999}
    metadata = Metadata(
        kind="policy",
        identity={"name": name},
        inputs={"policy": source} if source else {},
        seed=0,
        metrics={} if held is None else {"document_tokens": table},
    )
    fingerprint = name * 16
    store.obtain("sft", fingerprint, lambda out_dir, work_dir: metadata)
    return fingerprint


def test_the_last_training_decides(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = policy(store, "a", 2000)
    last = policy(store, "b", 300, first)
    unmeasured = policy(store, "c", None, last)
    for name in (last, unmeasured):
        assert completion_limit("auto", Policy(tmp_path / "sft" / name), "key") == 512
    assert completion_limit("auto", Policy(tmp_path / "sft" / first), "key") == 2048


def test_a_checkpoint_of_elsewhere_gets_the_general_limit(tmp_path: Path) -> None:
    assert completion_limit("auto", Policy(tmp_path, is_base=True), "key") == 4096
    assert completion_limit(77, Policy(tmp_path, is_base=True), "key") == 77
