"""What is sent for a message that is too large."""

from dataclasses import replace

import pytest

from forebay_consumer.errors import FatalError
from forebay_consumer.messages import LOST_AFTER_S, Message, Writer
from forebay_consumer.record import Fault, Success
from forebay_consumer.routes import Routes
from forebay_schemas import Code, Failure, Model, Result, read_reply, read_request
from support.consumer import ManualClock, make_record


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
        found = read_reply(message.key, message.value, message.headers)
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


def named(writer: Writer, topic: str, fault: Code | None = None) -> list[Message]:
    record = make_record(headers=[("reply-topic", topic.encode()), ("reply-partition", b"3")])
    envelope = read_request(record)[0]
    if fault is not None:
        return writer.messages(Fault(record, envelope, fault, "it failed", "forward"))
    return writer.messages(Success(record, envelope, ["out"], {}))


def test_a_result_that_its_topic_cannot_get_becomes_an_error_on_the_default_one_and_a_letter() -> None:
    writer = Writer(Routes(["replies", "^mine-.*"]), "dead", Model("m"), {})
    (lost,) = named(writer, "mine-7")
    assert (lost.topic, lost.partition) == ("mine-7", 3)
    instead = writer.astray(lost, "is not there")
    assert instead is not None
    assert [(message.topic, message.partition, message.letter) for message in instead] == [
        ("replies", -1, False),
        ("dead", -1, True),
    ]
    found = read_reply(instead[0].key, instead[0].value, None)
    assert isinstance(found, Failure)
    assert found.code is Code.INVALID_REQUEST
    assert found.message == "header reply-topic: 'mine-7' is not there; leave it out for 'replies'"


def test_an_error_of_many_words_keeps_its_code_and_its_letter() -> None:
    writer = Writer(Routes(["replies"]), "dead", Model("m"), {})
    reply, letter = named(writer, "replies", Code.MODEL_ERROR)
    assert writer.instead(reply) == [reply]
    found = read_reply(reply.key, reply.value, None)
    assert isinstance(found, Failure)
    assert (found.code, found.message) == (Code.MODEL_ERROR, "what there is to say is more than the reply topic takes")
    assert letter.letter
    with pytest.raises(FatalError, match="takes not even a small error"):
        writer.instead(reply)


def test_an_error_that_its_topic_cannot_get_goes_to_the_default_one_and_its_letter_stays() -> None:
    writer = Writer(Routes(["replies", "^mine-.*"]), "dead", Model("m"), {})
    reply, letter = named(writer, "mine-7", Code.POISON)
    assert writer.astray(reply, "is not there") == [reply]
    assert (reply.topic, reply.partition) == ("replies", -1)
    assert writer.astray(reply, "is not there") is None, "there is no other topic for it"
    assert writer.astray(letter, "is not there") is None


def test_a_topic_of_one_clients_that_takes_not_even_a_small_error_ends_no_worker() -> None:
    writer = Writer(Routes(["replies", "^mine-.*"]), None, Model("m"), {})
    (large,) = named(writer, "mine-7")
    (error,) = writer.instead(large)
    assert writer.instead(error) == [error]
    assert error.topic == "mine-7"
    assert writer.instead(error) == [error]
    assert error.topic == "replies"


def test_a_topic_is_lost_once_it_was_missing_for_long() -> None:
    clock = ManualClock(5)
    writer = Writer(Routes(["replies", "^mine-.*"]), None, Model("m"), {}, clock)
    (message,) = named(writer, "mine-7")
    clock.advance(60)
    assert not writer.lost(message), "it was said to be missing just now"
    clock.advance(LOST_AFTER_S - 1)
    assert not writer.lost(message)
    clock.advance(1)
    assert writer.lost(message)
