"""What is sent for a message that is too large."""

from dataclasses import replace

import pytest

from forebay_consumer.errors import FatalError
from forebay_consumer.messages import Message, Writer
from forebay_consumer.record import Success
from forebay_consumer.routes import Routes
from forebay_schemas import Model, Result, read_reply, read_request
from support.consumer import make_record


def result(writer: Writer, echo: bytes) -> Message:
    record = make_record(headers=[("correlation-id", echo), ("traceparent", b"trace")])
    (message,) = writer.messages(Success(record, read_request(record)[0], ["out"], {}))
    return message


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_result_names_the_precision_of_the_copy_that_ran_it(dtype: str | None) -> None:
    record = make_record()
    writer = Writer(Routes(["replies"]), None, Model("m", "3"), {})
    (message,) = writer.messages(Success(record, read_request(record)[0], ["out"], {}, dtype))
    found = read_reply(message.key, message.value, None)
    assert isinstance(found, Result)
    assert found.model == Model("m", "3", dtype)


def test_results_that_follow_one_another_each_tell_their_own() -> None:
    """What the last one had is kept, and must not be told of the next."""
    writer = Writer(Routes(["replies"]), None, Model("m"), {})
    timings = [{"forward_ms": 1.0}, {"forward_ms": 2.0}]
    places = [make_record(topic=topic, partition=partition) for topic in ("a", "b") for partition in (0, 1)]
    for number in range(64):
        timing, dtype, place = timings[number & 1], ("float32", None)[number >> 1 & 1], places[number >> 2 & 3]
        record = replace(place, offset=number)
        (message,) = writer.messages(Success(record, read_request(record)[0], [number], timing, dtype))
        found = read_reply(message.key, message.value, [(name, str(value).encode()) for name, value in message.headers])
        assert isinstance(found, Result)
        assert (found.outputs, found.timing, found.model.dtype) == ([number], timing, dtype)
        assert found.source == (place.topic, place.partition, number)


def names(message: Message) -> set[str]:
    return {name for name, _ in message.headers}


def test_an_error_that_is_too_large_itself_echoes_nothing_and_is_not_cut_again() -> None:
    writer = Writer(Routes(["replies"]), None, Model("m"), {})
    large = result(writer, b"x" * 100)
    (error,) = writer.instead(large)
    assert {"correlation-id", "code"} <= names(error)
    (bare,) = writer.instead(error)
    assert bare is error
    assert not {"correlation-id", "traceparent"} & names(bare)
    assert {"request-id", "code"} <= names(bare)
    with pytest.raises(FatalError, match=r"replies takes not even a small error; raise its max\.message\.bytes"):
        writer.instead(bare)
