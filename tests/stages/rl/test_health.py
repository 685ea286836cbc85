"""Early warnings of a run that goes wrong."""

import pytest

from reasoning_lab.stages.rl.metrics import Health


def step(**changes: float) -> dict[str, float]:
    usual = {
        "entropy": 1.0,
        "completion_tokens_mean": 50.0,
        "truncated_frac": 0.0,
        "groups_trained": 4.0,
        "mismatch/kl": 1e-5,
        "mismatch/effective_sample_frac": 0.99,
        "mismatch/outside_frac": 0.0,
    }
    return usual | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"entropy": 0.2}, "entropy collapses: 0.200 nats a token, 1.000 in the first"),
        # Of ten steps eight (106 tokens), or nine (54%), are enough.
        ({"completion_tokens_mean": 120.0}, "run away: 106 tokens, 50 in the first"),
        ({"truncated_frac": 0.6}, "54% cut off"),
        ({"groups_trained": 0.0}, "no group of the last 10 steps"),
        # Four steps of ten suffice for a mean of 0.012 nats, nine for a mean of 46%.
        ({"mismatch/kl": 0.03}, "from the one that trains: 0.012 nats a token, 99% of the imp"),
        (
            {"mismatch/effective_sample_frac": 0.4, "mismatch/outside_frac": 0.5},
            "46% of the importance weights count, 45% lie outside their band; set importance.mode",
        ),
    ],
)
def test_health_speaks_once_and_in_time(changes: dict[str, float], expected: str) -> None:
    health = Health()
    assert [health.warnings(step()) for _ in range(20)] == [[]] * 20
    warnings = [health.warnings(step(**changes)) for _ in range(15)]
    assert warnings[0] == []
    (warning,) = [text for texts in warnings for text in texts]
    assert expected in warning
    assert len([texts for texts in warnings if texts]) == 1


def test_steps_that_do_not_train_say_nothing_of_the_mismatch() -> None:
    health = Health()
    idle = {key: value for key, value in step().items() if not key.startswith("mismatch")}
    assert [health.warnings(idle) for _ in range(20)] == [[]] * 20
    steps = [{**idle, "mismatch/kl": 1.0, "mismatch/effective_sample_frac": 1.0}] + [idle] * 3
    (text,) = [
        text for one in steps for text in health.warnings({"mismatch/outside_frac": 0, **one})
    ]
    assert "1.000 nats a token" in text
