"""Statistics, mixes of length, packing and the report: the parts of the benchmark that are pure."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from bench.drive.sample import NotAnswered, Tally, Work, checked_rows
from bench.figures import Spread, percentile
from bench.limits import packed_rows
from bench.load import MIXES, SHORT, mixed, texts, vectors
from bench.peers.all import PEERS
from bench.reference import Linear, agrees, answers
from bench.report.__main__ import check_once
from bench.report.found import Found, number, shown
from bench.report.page import page


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        pytest.param([3.0], 0.99, 3.0, id="one value is every percentile"),
        pytest.param([4.0, 1.0, 3.0, 2.0], 0.5, 2.0, id="half of all do not exceed the median"),
        pytest.param(list(range(1, 101)), 0.99, 99, id="the 99th of a hundred"),
        pytest.param(list(range(1, 11)), 0.99, 10, id="of ten it is the largest"),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_a_spread_has_least_median_and_most() -> None:
    assert Spread.of([3, 1, 2]) == Spread(1, 2, 3)


@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_is_the_same_each_time(mix: str) -> None:
    assert mixed(mix, 20) == mixed(mix, 20)


def test_mixes_have_the_lengths_of_their_names() -> None:
    words = {mix: [len(text.split()) for text in mixed(mix, 400)] for mix in MIXES}
    assert set(words["all short"]) == {SHORT}
    assert len(set(words["all long"])) == 1
    assert 0.4 < Counter(words["bimodal"])[SHORT] / 400 < 0.6
    assert words["sorted"] == sorted(words["log-normal"])
    assert texts(400) == mixed("log-normal", 400)
    assert 40 < np.mean(words["log-normal"]) < 60


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        pytest.param([], [], id="none"),
        pytest.param([300], [[0]], id="longer than a row has one of its own"),
        pytest.param([10, 200, 50], [[1, 2], [0]], id="the longest first, each where it fits"),
        pytest.param([128, 128, 128], [[0, 1], [2]], id="a row is filled exactly"),
    ],
)
def test_packing_puts_each_text_into_one_row(lengths: list[int], rows: list[list[int]]) -> None:
    assert packed_rows(lengths, 256) == rows


def test_checked_rows_are_spread_over_all() -> None:
    assert checked_rows(4) == [0, 1, 2, 3]
    assert len(checked_rows(1000)) == 16
    assert checked_rows(1000)[-1] > 900


def linear_work(rows: list[list[float]]) -> Work:
    return Work("T3", "float32", rows, {0: Linear().run(rows[:1])[0].tolist()})


def test_an_answer_counts_once_and_only_in_its_own_run() -> None:
    rows = vectors(4)
    tally = Tally(linear_work(rows), PEERS["naive"].answer)
    request_id, row = tally.ask()
    (answer,) = answers("T3", Linear().run([row]))
    body = b'{"outputs": [%s]}' % str(answer).encode()
    assert not tally.take("of another run", body)
    assert tally.take(request_id, body)
    assert not tally.take(request_id, body)
    assert (len(tally.latencies_s), tally.checked) == (1, 1)


@pytest.mark.parametrize("body", [b'{"outputs": [[9, 9]]}', b'{"error": {"code": "internal"}}'], ids=["wrong", "error"])
def test_a_wrong_answer_fails_the_run(body: bytes) -> None:
    tally = Tally(linear_work(vectors(4)), PEERS["naive"].answer)
    request_id, _ = tally.ask()
    with pytest.raises(NotAnswered):
        tally.take(request_id, body)


def test_either_of_two_equally_likely_labels_is_right() -> None:
    expected = [0.4, 0.4, 0.2]
    assert agrees("T2", {"label": "LABEL_1", "score": 0.4}, expected)
    assert not agrees("T2", {"label": "LABEL_2", "score": 0.2}, expected)
    assert not agrees("T2", {"label": "LABEL_1", "score": 0.3}, expected)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (1.4e-18, "0"), (0.00123, "0.00123"), (0.5, "0.500"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_numbers_have_three_figures(value: float, told: str) -> None:
    assert number(value) == told


def row(peer: str, mode: str, repeat: int, **figures: float) -> dict[str, Any]:
    return {"peer": peer, "load": "T1", "dtype": "float32", "mode": mode, "repeat": repeat, **figures}


ROWS = [
    row("model alone, packed", "loop", 0, per_s=100, cpu_ms=8),
    row("model alone, packed", "loop", 1, per_s=50, cpu_ms=20),
    row("model alone, one at a time", "loop", 0, per_s=40, cpu_ms=25),
    row("Forebay", "closed 64", 0, per_s=64, cpu_ms=20, p50_ms=900, p95_ms=1_000, p99_ms=2_000, peak_mb=900),
    row("model alone, packed", "loop", 0, per_s=100, cpu_ms=12),
    row("LitServe", "closed 64", 0, per_s=10, cpu_ms=80, p50_ms=900, p95_ms=1_000, p99_ms=2_000, peak_mb=900),
    row("model alone, packed", "loop", 0, per_s=100, cpu_ms=4),
    row("Forebay", "closed 64", 1, per_s=32, cpu_ms=40, p50_ms=900, p95_ms=1_000, p99_ms=2_000, peak_mb=950),
    {"peer": "Triton", "load": "T1", "dtype": "float32", "repeat": 0, "not_measured": "no wheel"},
    {"experiment": "004.1", "case": "T2", "t(10) / t(1)": 2.5},
    {"question": "workers", "case": "2 on 2 cores", "repeat": 0, "load": "T1", "per_s": 99, "cpu_ms": 1},
]


def test_the_limit_is_the_loop_that_costs_least_and_shares_are_of_the_two_nearest_of_the_same_repeat() -> None:
    found = Found(ROWS)
    assert found.limit("T1", "float32") == "model alone, packed"
    assert found.share("T1", "float32", "Forebay", "closed 64") == Spread(0.5, 0.5, 0.5)
    assert found.share("T1", "float32", "LitServe", "closed 64") == Spread(0.1, 0.1, 0.1)
    assert found.share("T1", "float32", "model alone, packed", "loop") == Spread(1, 1, 1)
    assert found.stretch("T1", "float32", "Forebay", 64) == Spread(1, 1.5, 2)
    assert shown(found.spread("T1", "float32", "Forebay", "closed 64", "per_s")) == "48.0 (32.0 to 64.0)"


def run(rows: list[dict[str, Any]], **about: Any) -> dict[str, Any]:
    machine = {"cores": 2, "processor": "x", "memory_gb": 24, "python": "3.11", "versions": {"torch": "2"}}
    known = {"machine": machine, "began": "2026-01-01 10:00", "repeats": 2, "scale": 0.5, "minutes": 9.0}
    return {**known, **about, "rows": rows}


def test_the_page_shows_every_contender_and_says_who_is_missing() -> None:
    told = page([run(ROWS)], {"004.1": "ten in one"})
    assert "| **Forebay** | 48.0 (32.0 to 64.0) |" in told
    assert "| Triton | T1 | no wheel |" in told
    assert "**ten in one** (004.1)" in told
    assert "| 2 on 2 cores | 99.0 |" in told
    assert "Pictures" not in told


def test_the_page_says_of_each_run_what_it_measured_on_what() -> None:
    alone = [row for row in ROWS if "experiment" in row]
    others = run(alone, began="2026-01-02 09:00", repeats=1, scale=1, minutes=20.0)
    told = page([run([row for row in ROWS if row not in alone]), others], {"004.1": "ten in one"}, {"arm": "arm/x.md"})
    on = "2 cores of x, 24 GB, Python 3.11, torch 2"
    assert f"| T1 float32, question workers | 2026-01-01 | {on} | 2, interleaved | 0.5 of it | 9 |" in told
    assert f"| experiment 004.1 | 2026-01-02 | {on} | 1 | full | 20 |" in told
    assert "Other machines: [arm](arm/x.md)." in told


def test_there_is_no_share_of_no_time() -> None:
    """The system counts CPU in steps, whose difference may be a rounding error."""
    found = Found([*ROWS, row("TorchServe", "closed 64", 0, per_s=1, cpu_ms=1e-18)])
    assert found.share("T1", "float32", "TorchServe", "closed 64") is None


def test_a_run_that_was_broken_off_says_so() -> None:
    told = page([run(ROWS, repeats=3)], {"004.1": "ten in one"})
    assert "| 2 of 3 planned, interleaved |" in told


def test_no_two_runs_may_have_measured_the_same() -> None:
    check_once({"one": run(ROWS), "two": run([])})
    with pytest.raises(SystemExit, match=r"T1 float32 is in one\.json and in two\.json"):
        check_once({"one": run(ROWS), "two": run(ROWS[:1])})
    with pytest.raises(SystemExit, match=r"experiment 004\.1 is in"):
        check_once({"one": run(ROWS), "two": run([row for row in ROWS if "experiment" in row])})
