"""The promise, checked when all is over: every request answered, by its own answer, and no other answer there."""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from forebay_schemas import Code, Failure
from forebay_schemas.headers import last_values
from support.pipeline import Pipeline, Reader
from support.scripted import digest
from support.worker import wait_until

NO_ERRORS: Final[Mapping[str, Code]] = MappingProxyType({})


def numbered(count: int, name: str = "text") -> dict[str, str]:
    """`count` different texts, by id."""
    return {f"{name}-{number}": f"{name} number {number}" for number in range(count)}


def assert_kept(
    reader: Reader, texts: Mapping[str, Any], *, errors: Mapping[str, Code] = NO_ERRORS, repeats: int = 0
) -> None:
    """Read the reply topic to its end, and hold all that is there against what was sent.

    Args:
        texts: id to the one row of each request that must have a result; each id was sent once.
        errors: id to the code of each request that must have an error.
        repeats: most replies beyond one a request.
    """
    reader.read_to_end()
    answered, expected = reader.ids(), texts.keys() | errors.keys()
    assert not (lost := expected - answered.keys()), f"lost: {len(lost)}, as {sorted(lost)[:10]}"
    assert not (phantom := answered.keys() - expected), f"phantom: {len(phantom)}, as {sorted(phantom)[:10]}"
    for reply in reader.replies():
        if isinstance(reply, Failure):
            assert errors.get(reply.id) == reply.code, f"{reply.id}: {reply.code}: {reply.message}"
        else:
            assert reply.id in texts, f"{reply.id} has a result; expected the error {errors[reply.id]}"
            assert reply.outputs[0]["digest"] == digest(texts[reply.id]), f"crossed: {reply.id} got {reply.outputs[0]}"
    assert len(reader.sources()) == len(expected), "an answer names another request as its source"
    assert repeats_in(reader) <= repeats, f"{repeats_in(reader)} replies are repeats"


def repeats_in(reader: Reader) -> int:
    """Replies so far beyond one a request."""
    return sum(times - 1 for times in reader.sources().values())


def assert_all_committed(pipeline: Pipeline) -> None:
    """Block until the group's lag is 0."""
    ends = pipeline.ends()
    wait_until(lambda: pipeline.committed() == ends, f"committed up to {ends}")


def assert_dead_letters(pipeline: Pipeline, codes: Mapping[str, Code], *, repeats: int = 0) -> None:
    """The dead letters are those of these requests, each with its code, and no others."""
    reader = pipeline.reader(pipeline.dead_letters)
    reader.read_to_end()
    reader.close()
    letters = [last_values(letter.headers()) for letter in reader.messages]
    found = Counter((told["forebay-request-id"].decode(), told["forebay-code"].decode()) for told in letters)
    assert found.keys() == {(id_, code.value) for id_, code in codes.items()}
    assert found.total() - len(codes) <= repeats
