"""The growth benchmark: its exponent, and that every curve runs; no time is looked at."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .growth.__main__ import CURVES, save_curves, table
from .growth.curve import Curve, doublings, exponent, measured_row

# Those that start processes, or compose a recipe many times.
SLOW = ("verify/problems", "recipe/stages", "recipe/variants")


@given(st.floats(0.0, 3.0), st.floats(1e-6, 1e3), st.integers(2, 10))
def test_the_exponent_of_a_power_law_is_its_power(power: float, factor: float, count: int) -> None:
    sizes = doublings(8, 8 * 2 ** (count + 1))
    assert exponent(sizes, [factor * size**power for size in sizes]) == pytest.approx(power)


def test_small_sizes_do_not_flatter_the_exponent() -> None:
    """Of six sizes the last three decide, of four the last two."""
    assert exponent(doublings(16, 512), [5.0, 5.0, 5.0, 1.0, 4.0, 16.0]) == pytest.approx(2.0)
    assert exponent((1, 2, 4, 8), [9.0, 9.0, 1.0, 8.0]) == pytest.approx(3.0)
    assert exponent((1, 2), [1.0, 8.0]) == pytest.approx(3.0)


def test_sizes_double() -> None:
    assert doublings(3, 24) == (3, 6, 12, 24)
    assert doublings(5, 5) == (5,)


@pytest.mark.parametrize("name", [name for name in CURVES if name not in SLOW])
def test_a_curve_runs_at_its_smallest_sizes(name: str) -> None:
    curve = CURVES[name]
    assert curve.sizes == doublings(curve.sizes[0], curve.sizes[-1])
    assert len(curve.sizes) >= 4
    for size in curve.sizes[:2]:
        with ExitStack() as stack:
            curve.prepare(size, stack)()


def test_a_curve_that_grows_too_fast_does_not_pass(tmp_path: Path) -> None:
    def prepare(size: int, stack: ExitStack) -> Any:
        return lambda: sum(range(4000 * size))

    curve = Curve("numbers", "their sum", (1, 2, 4), 1, prepare)
    # By more than any clock errs: what is linear is asked not to grow, or to explode.
    rows = [measured_row(f"at most {n:g}", replace(curve, expected=n)) for n in (-1.0, 3.0)]
    assert [row["passes"] for row in rows] == [False, True]
    lines = table(rows).splitlines()
    assert [line.split(" | ")[-1] for line in lines[-2:]] == ["**no** |", "yes |"]
    save_curves(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
