from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.progress import MAX_CHARS, Progress, Range, Trial, decode, encode

OFFSETS = st.integers(0, 10**11)


@st.composite
def progresses(draw: st.DrawFn) -> tuple[Progress, int]:
    offset = draw(OFFSETS)
    edges = sorted(draw(st.sets(st.integers(1, 10**6), max_size=400)))
    done = tuple(Range(offset + a, offset + b) for a, b in zip(edges[::2], edges[1::2], strict=False))
    trial = draw(st.none() | st.builds(Trial, st.integers(offset, offset + 1000), st.integers(1, 99)))
    life = draw(st.just("") | st.from_regex("[0-9a-f]{16}", fullmatch=True))
    return Progress(draw(st.booleans()), offset + draw(st.integers(0, 10**6)), trial, done, life), offset


@given(progresses())
def test_what_is_written_is_read_back(case: tuple[Progress, int]) -> None:
    progress, offset = case
    assert decode(encode(progress, offset, max_chars=100_000), offset) == progress


@given(progresses(), st.integers(60, MAX_CHARS))
def test_ranges_that_do_not_fit_are_left_out_from_the_far_end(case: tuple[Progress, int], max_chars: int) -> None:
    progress, offset = case
    text = encode(progress, offset, max_chars)
    assert len(text) <= max_chars
    assert text.isascii()
    kept = decode(text, offset)
    assert replace(kept, done=()) == replace(progress, done=())
    assert kept.done == progress.done[: len(kept.done)]
    if len(kept.done) < len(progress.done):
        one_more = replace(progress, done=progress.done[: len(kept.done) + 1])
        assert len(encode(one_more, offset, max_chars=100_000)) > max_chars, "room was left for one more"


def test_it_reads_as_documented() -> None:
    progress = Progress(True, 140, Trial(103, 1), (Range(105, 109), Range(112, 113)))
    assert encode(progress, 100) == "fb1 open +40 trial +3x1 done 5-9,12-13"
    line = "fb2 00112233aabbccdd open +40 trial +3x1 done 5-9,12-13"
    assert encode(replace(progress, life="00112233aabbccdd"), 100) == line


def test_a_line_of_version_1_is_nobodys_in_particular() -> None:
    assert decode("fb1 open +40 trial +3x1", 100) == Progress(True, 140, Trial(103, 1))


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_metadata_says_nothing(nothing: str | None) -> None:
    assert decode(nothing, 7) == Progress()


@pytest.mark.parametrize(
    "foreign",
    [
        "something of another program",
        "fb2 open +40",
        "fb2 0011 open +40",
        "fb1 00112233aabbccdd open +40",
        "fb3 00112233aabbccdd open +40",
        "fb1 open",
        "fb1 ajar +4",
        "fb1 open +4 done 9-5",
        "fb1 open +4 done 5-9,7-12",
        "fb1 open +4 trial +3",
        "fb1 open +4 ",
        "fb1 open +" + "9" * 400,
    ],
)
def test_what_is_not_ours_is_refused(foreign: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        decode(foreign, 7)


def test_a_trial_below_the_offset_is_not_written() -> None:
    assert decode(encode(Progress(True, 9, Trial(4, 1)), 5), 5).trial is None
