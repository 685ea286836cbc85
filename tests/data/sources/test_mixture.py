"""Three domains by weight: shares of a run, shares of one draw, and one split for each prompt."""

from collections import Counter
from pathlib import Path

import pytest

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.problems import DrawWeights
from reasoning_lab.data.sources.canonical import form_id
from reasoning_lab.data.sources.config import FileConfig, MixtureConfig
from reasoning_lab.data.sources.mixture import MixtureSource, weighted
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.weighted_draw import Drawable
from reasoning_lab.types import Split, UserError
from tests.support.sources import file_source, write_lines

WEIGHTS = {"logic": 2.0, "strings": 1.0, "graphs": 1.0}


@pytest.fixture
def mixture(tmp_path: Path) -> MixtureSource:
    """200 problems of each domain, half of them at each of two levels."""
    sources: dict[str, SourceConfig] = {}
    for name in WEIGHTS:
        rows = [{"prompt": f"{name} {n}?", "gold": "1", "level": 1 + n % 2} for n in range(200)]
        path = write_lines(tmp_path / f"{name}.jsonl", rows)
        sources[name] = FileConfig(path=str(path), rows=RowMapping(domain=name))
    return MixtureSource(MixtureConfig(sources, WEIGHTS, 0.4, 0.1))


def shares(source: Drawable, count: int, split: Split = Split.TRAIN) -> dict[str, int]:
    return Counter(one.domain for one in source.problems(split, None, count, 0))


def test_domains_come_by_the_weights_of_the_run(mixture: MixtureSource) -> None:
    assert shares(mixture, 80) == {"logic": 40, "strings": 20, "graphs": 20}
    # Held-out problems too.
    assert shares(mixture, 40, Split.TEST) == {"logic": 20, "strings": 10, "graphs": 10}
    drawn = (mixture.problems(split, None, 80, 0) for split in (Split.TRAIN, Split.TEST))
    train, test = ({problem.id for problem in problems} for problems in drawn)
    assert len(train) == len(test) == 80
    assert not train & test


def test_a_draw_may_have_weights_of_its_own(mixture: MixtureSource) -> None:
    drawn = weighted(mixture, DrawWeights(sources={"logic": 0, "graphs": 3}))
    # The strings keep the weight of the run.
    assert shares(drawn, 80) == {"strings": 20, "graphs": 60}
    assert shares(mixture, 80) == {"logic": 40, "strings": 20, "graphs": 20}


def test_each_source_has_its_share_of_a_stream_and_needs_no_more(mixture: MixtureSource) -> None:
    """All graphs of the stream, of which the whole split has four times as many."""
    drawn = weighted(mixture, DrawWeights(sources={"logic": 0}), (0.7, 1.0), "stages.rl.problems")
    graphs = weighted(mixture, DrawWeights(sources={"logic": 0, "strings": 0}))
    problems = graphs.problems(Split.TRAIN, None, 101, 0)
    in_stream = sum(int(form_id(one)[8:], 16) / 16**8 >= 0.7 for one in problems)
    assert shares(drawn, 2 * in_stream) == {"strings": in_stream, "graphs": in_stream}
    with pytest.raises(
        UserError, match=r"^stages\.rl\.problems\.stream=.* of 'graphs\.jsonl' has 27 .* 28 are"
    ):
        shares(drawn, 2 * in_stream + 2)


def test_levels_of_a_draw_have_each_the_weights_of_its_sources(mixture: MixtureSource) -> None:
    drawn = weighted(mixture, DrawWeights({1: 3, 2: 1}, {"logic": 0}))
    problems = list(drawn.problems(Split.TRAIN, [1, 2], 80, 0))
    counts = Counter((one.domain, one.level) for one in problems)
    assert counts == {
        ("strings", 1): 30,
        ("graphs", 1): 30,
        ("strings", 2): 10,
        ("graphs", 2): 10,
    }


def test_weights_that_fit_no_mixture_are_refused(mixture: MixtureSource, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source_weights: 'code' is no source.*logic, strings, gr"):
        weighted(mixture, DrawWeights(sources={"code": 1}))
    for none in ({"logic": -1.0}, dict.fromkeys(WEIGHTS, 0.0)):
        with pytest.raises(UserError, match=r"source_weights: .* are no shares"):
            weighted(mixture, DrawWeights(sources=none))
    alone = file_source(write_lines(tmp_path / "one.jsonl", [{"prompt": "?", "gold": "1"}]))
    with pytest.raises(UserError, match=r"source_weights: the data is no mixture"):
        weighted(alone, DrawWeights(sources={"logic": 1}))
