"""From records to items: one bad record is its own fault, and nobody else's."""

import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
import pytest

from forebay_consumer.detail import Detail
from forebay_consumer.errors import DeviceLost, FatalError
from forebay_consumer.expiry import NO_EXPIRY, Expiry
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.metrics import Metrics
from forebay_consumer.model import Model
from forebay_consumer.preprocess import Preprocess, Preprocessor
from forebay_consumer.record import Claim, Fault, Item, Outcome, Record
from forebay_consumer.routes import Routes
from forebay_consumer.window import Rules, Window
from forebay_schemas import Code, DecodeError, RequestError, TooLarge, Unsupported
from forebay_schemas import Model as Served
from support.consumer import ManualClock, Watched, make_record


def any_claim(_claim: Claim) -> bool:
    return True


class Upper(Model):
    """Upper-cases texts; a text that names an error is that error."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.calls: list[tuple[list[Any], Mapping[str, Any]]] = []

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        self.calls.append((list(rows), parameters))
        for row in rows:
            if row in self.errors:
                raise self.errors[row]
        return [row.upper() if isinstance(row, str) else row for row in rows]

    def cost(self, row: Any) -> int:
        return len(row)

    def forward(self, batch: Any) -> Any:
        raise AssertionError("never called here")


class InPlace(Upper):
    """Gives an error back in its row's place."""

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        self.calls.append((list(rows), parameters))
        return [self.errors.get(row, row) for row in rows]


def request(offset: int, *inputs: Any, parameters: Mapping[str, Any] | None = None, **fields: Any) -> Record:
    body: dict[str, Any] = {"inputs": list(inputs)}
    if parameters is not None:
        body["parameters"] = parameters
    return make_record(offset, value=orjson.dumps(body), **fields)


def run(
    *records: Record,
    model: Model | None = None,
    max_rows: int = 32,
    max_bytes: int = 10_000,
    now: float = 1000.0,
    ttl_s: float | None = None,
    detail: Detail = "message",
) -> tuple[dict[int, Item], dict[int, Fault]]:
    """Items and faults by offset; one of both for each record."""
    made = Preprocessor(
        model or Upper(),
        Served("shout", "3"),
        Routes(["replies", "other"]),
        max_rows,
        max_bytes,
        Expiry(ttl_s, ManualClock(now)),
        detail,
    )
    items, faults = made.run(records)
    by_offset = {item.record.offset: item for item in items}, {fault.record.offset: fault for fault in faults}
    assert sorted([*by_offset[0], *by_offset[1]]) == [record.offset for record in records]
    assert len(items) + len(faults) == len(records)
    return by_offset


def refused(*records: Record, **options: Any) -> Fault:
    """The fault of the first record; all others must have become items."""
    _, faults = run(*records, **options)
    assert list(faults) == [records[0].offset]
    return faults[records[0].offset]


# --- items ---


def test_a_request_becomes_an_item_of_prepared_rows() -> None:
    record = request(7, "ab", "abcd", "c", parameters={"k": 1})
    items, _ = run(record)
    item = items[7]
    assert item.record is record
    assert item.rows == ["AB", "ABCD", "C"]
    assert item.cost == 4
    assert item.parameters == {"k": 1}


def test_an_item_knows_what_its_rows_cost_together() -> None:
    items, _ = run(request(0, "ab", "abcd", ""))
    assert (items[0].cost, items[0].total_cost) == (4, 7)


def test_a_row_that_costs_nothing_counts_as_one() -> None:
    items, _ = run(request(0, ""))
    assert items[0].cost == 1


def test_each_item_of_a_chunk_has_its_own_rows_in_order() -> None:
    records = [request(0, "a"), request(1, "b", "c"), make_record(2, value=b"d"), request(3, "e", "f", "g")]
    model = Upper()
    items, _ = run(*records, model=model)
    assert [items[offset].rows for offset in range(4)] == [["A"], ["B", "C"], ["D"], ["E", "F", "G"]]
    assert model.calls == [(["a", "b", "c", "d", "e", "f", "g"], {})]


def test_no_records_are_no_call() -> None:
    model = Upper()
    assert run(model=model) == ({}, {})
    assert model.calls == []


def test_requests_of_equal_parameters_share_one_call_and_one_key() -> None:
    model = Upper()
    items, _ = run(
        request(0, "a", parameters={"x": 1, "y": 2}),
        request(1, "b"),
        request(2, "c", parameters={"y": 2, "x": 1}),
        request(3, "d", parameters={"x": 2, "y": 2}),
        request(4, "e", parameters={}),
        model=model,
    )
    assert model.calls == [
        (["a", "c"], {"x": 1, "y": 2}),
        (["b", "e"], {}),
        (["d"], {"x": 2, "y": 2}),
    ]
    keys = [items[offset].key for offset in range(5)]
    assert keys[0] == keys[2]
    assert keys[1] == keys[4]
    assert len(set(keys)) == 3


def test_a_record_that_is_to_run_alone_shares_its_key_with_nobody() -> None:
    records = [request(offset, "a", parameters={"x": 1}) for offset in range(3)]
    records[0].alone = records[1].alone = True
    items, _ = run(*records)
    assert len({items[offset].key for offset in range(3)}) == 3


# --- refused before the model ---

BAD_RECORDS = [
    pytest.param({"value": b"\xff\xfe"}, Code.INVALID_REQUEST, id="no UTF-8"),
    pytest.param({"value": b"{"}, Code.INVALID_REQUEST, id="no JSON"),
    pytest.param({"value": b'{"inputs": []}'}, Code.INVALID_REQUEST, id="no rows"),
    pytest.param({"value": None}, Code.INVALID_REQUEST, id="a tombstone"),
    pytest.param({"value": b""}, Code.INVALID_REQUEST, id="an empty value"),
    pytest.param({"headers": [("content-type", b"video/mp4")]}, Code.UNSUPPORTED, id="a foreign content type"),
    pytest.param({"headers": [("deadline-ms", b"soon")]}, Code.INVALID_REQUEST, id="a deadline in words"),
    pytest.param({"headers": [("reply-topic", b"elsewhere")]}, Code.INVALID_REQUEST, id="a topic not on the list"),
    pytest.param({"headers": [("model", b"other")]}, Code.UNSUPPORTED, id="another model"),
    pytest.param({"headers": [("model-version", b"9")]}, Code.UNSUPPORTED, id="another version"),
    pytest.param({"headers": [("deadline-ms", b"999999")]}, Code.EXPIRED, id="a deadline that has passed"),
    pytest.param({"value": b"x" * 10_001}, Code.TOO_LARGE, id="too many bytes"),
    pytest.param({"value": orjson.dumps({"inputs": ["x"] * 33})}, Code.TOO_LARGE, id="too many rows"),
    pytest.param({"fault": "headers: not UTF-8"}, Code.INVALID_REQUEST, id="headers that could not be read"),
]


@pytest.mark.parametrize(("fields", "code"), BAD_RECORDS)
@pytest.mark.parametrize("position", [0, 13, 31])
def test_one_bad_record_among_32_is_its_own_fault_and_the_model_never_sees_it(
    fields: Mapping[str, Any], code: Code, position: int
) -> None:
    model = Upper()
    records = [make_record(offset, **(fields if offset == position else {})) for offset in range(32)]
    items, faults = run(*records, model=model)
    assert [(offset, fault.code, fault.stage) for offset, fault in faults.items()] == [(position, code, "decode")]
    assert sorted(items) == [offset for offset in range(32) if offset != position]
    assert model.calls == [(["text"] * 31, {})]


def test_more_rows_than_a_batch_name_both_numbers() -> None:
    fault = refused(request(0, *"abcde"), request(1, *"abcd"), max_rows=4)
    assert fault.code is Code.TOO_LARGE
    assert "5 rows" in fault.message
    assert "max_batch_size is 4" in fault.message


def test_more_bytes_than_allowed_name_both_numbers() -> None:
    fault = refused(make_record(0, value=b"x" * 101), make_record(1, value=b"x" * 100), max_bytes=100)
    assert fault.code is Code.TOO_LARGE
    assert "101 bytes" in fault.message
    assert "limits.max_request_bytes is 100" in fault.message
    assert fault.attempts == 0, "it came to no pass"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param([("model", b"loud")], "model 'loud' is not served here; served is 'shout'", id="the model"),
        pytest.param(
            [("model", b"shout"), ("model-version", b"9")],
            "model-version '9' is not served here; served is '3'",
            id="the version",
        ),
    ],
)
def test_another_model_is_unsupported_and_the_served_one_is_named(headers: list[tuple[str, bytes]], said: str) -> None:
    fault = refused(make_record(0, headers=headers))
    assert (fault.code, fault.message) == (Code.UNSUPPORTED, said)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(make_record(headers=[("model", b"shout"), ("model-version", b"3")]), id="by headers"),
        pytest.param(make_record(headers=[("model", b"shout")]), id="any version"),
        pytest.param(make_record(value=b'{"model": "shout", "inputs": ["a"]}'), id="by the body"),
    ],
)
def test_a_request_may_name_the_served_model(record: Record) -> None:
    assert run(record)[1] == {}


def test_a_model_named_in_the_body_is_checked_too() -> None:
    assert refused(make_record(value=b'{"model": "loud", "inputs": ["a"]}')).code is Code.UNSUPPORTED


def test_a_refused_reply_topic_is_named_and_the_client_can_still_be_told() -> None:
    fault = refused(make_record(key=b"me", headers=[("reply-topic", b"elsewhere"), ("correlation-id", b"\x00\xff")]))
    assert fault.code is Code.INVALID_REQUEST
    assert "'elsewhere'" in fault.message
    assert fault.envelope.id == "me"
    assert fault.envelope.correlation == (("correlation-id", b"\x00\xff"),)


def test_an_allowed_reply_topic_is_kept_for_the_reply() -> None:
    items, _ = run(make_record(headers=[("reply-topic", b"other")]))
    assert items[0].envelope.reply_topic == "other"


@pytest.mark.parametrize(
    ("now", "expired"),
    [pytest.param(4.999, False, id="before"), pytest.param(5.0, True, id="at"), pytest.param(6.0, True, id="after")],
)
def test_a_request_is_not_run_from_its_deadline_on(now: float, expired: bool) -> None:
    _, faults = run(make_record(headers=[("deadline-ms", b"5000")]), now=now)
    assert [fault.code for fault in faults.values()] == ([Code.EXPIRED] if expired else [])
    assert all("deadline-ms 5000" in fault.message for fault in faults.values())


@pytest.mark.parametrize(
    ("timestamp_s", "expired"),
    [
        pytest.param(997.5, False, id="younger"),
        pytest.param(997.0, True, id="as old"),
        pytest.param(900.0, True, id="older"),
        pytest.param(2000.0, False, id="from a clock that is ahead"),
        pytest.param(None, False, id="of no known age"),
    ],
)
def test_a_request_is_not_run_once_it_has_lived_its_time(timestamp_s: float | None, expired: bool) -> None:
    _, faults = run(make_record(timestamp_s=timestamp_s), now=1000.0, ttl_s=3.0)
    assert [fault.code for fault in faults.values()] == ([Code.EXPIRED] if expired else [])
    assert all("limits.request_ttl_ms 3000" in fault.message for fault in faults.values())


@pytest.mark.parametrize(
    ("deadline_ms", "expired"),
    [pytest.param(b"999000", True, id="sooner"), pytest.param(b"9999000", True, id="later")],
)
def test_a_deadline_may_only_shorten_the_time_that_a_request_lives(deadline_ms: bytes, expired: bool) -> None:
    record = make_record(
        timestamp_s=996.0 if deadline_ms == b"9999000" else 999.0, headers=[("deadline-ms", deadline_ms)]
    )
    _, faults = run(record, now=1000.0, ttl_s=3.0)
    assert [fault.code for fault in faults.values()] == ([Code.EXPIRED] if expired else [])


def test_a_request_above_the_limit_is_refused_unread_and_named_by_headers_or_key() -> None:
    value = orjson.dumps({"id": "in the body", "inputs": ["x" * 200]})
    _, faults = run(
        make_record(0, value=value, key=b"key"),
        make_record(1, value=value, key=b"key", headers=[("request-id", b"header"), ("correlation-id", b"\xff")]),
        make_record(2, value=value, headers=[("request-id", b"broken"), ("priority", b"high")]),
        make_record(3, value=b"{" + b"x" * 200),
        max_bytes=100,
    )
    assert {fault.code for fault in faults.values()} == {Code.TOO_LARGE}
    assert [faults[offset].envelope.id for offset in range(4)] == ["key", "header", "broken", "requests-0-3"]
    assert faults[1].envelope.correlation == (("correlation-id", b"\xff"),)


def test_the_words_of_unreadable_headers_reach_the_client() -> None:
    fault = refused(make_record(fault="headers: name is not UTF-8"))
    assert fault.message == "headers: name is not UTF-8"


# --- refused by the model ---


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param(TooLarge("900 tokens; most 512"), Code.TOO_LARGE, "900 tokens; most 512", id="too large"),
        pytest.param(DecodeError("no JPEG"), Code.INVALID_REQUEST, "no JPEG", id="undecodable"),
        pytest.param(Unsupported("no Latin"), Code.UNSUPPORTED, "no Latin", id="unsupported"),
    ],
)
@pytest.mark.parametrize("model", [Upper, InPlace])
def test_a_request_error_from_the_model_answers_that_request_alone(
    model: Callable[..., Model], error: RequestError, code: Code, message: str
) -> None:
    fault = refused(make_record(0, value=b"bad"), *(make_record(n) for n in range(1, 32)), model=model(bad=error))
    assert (fault.code, fault.message, fault.stage) == (code, message, "preprocess")


def test_an_error_in_a_row_of_several_says_which() -> None:
    fault = refused(request(0, "a", "bad", "c"), request(1, "d"), model=InPlace(bad=TooLarge("900 tokens")))
    assert fault.message == "inputs[1]: 900 tokens"


def test_when_preprocess_raises_for_one_the_others_keep_their_own_rows() -> None:
    records = [request(offset, f"a{offset}", "bad" if offset == 5 else f"b{offset}") for offset in range(16)]
    items, faults = run(*records, model=Upper(bad=ValueError("/srv: some text")))
    assert list(faults) == [5]
    assert (faults[5].code, faults[5].stage) == (Code.MODEL_ERROR, "preprocess")
    assert "ValueError" in faults[5].message
    assert "/srv" not in faults[5].message
    assert {offset: item.rows for offset, item in items.items()} == {
        offset: [f"A{offset}", f"B{offset}"] for offset in range(16) if offset != 5
    }


def test_requests_of_other_parameters_are_not_prepared_again_for_a_neighbour() -> None:
    model = Upper(bad=ValueError())
    run(request(0, "a", parameters={"x": 1}), request(1, "bad"), request(2, "c"), model=model)
    assert model.calls.count((["a"], {"x": 1})) == 1


@pytest.mark.parametrize("too", [[], ["x"], ["x"] * 5], ids=["none at all", "too few", "too many"])
def test_a_wrong_number_of_prepared_rows_gives_nobody_the_rows_of_another(too: list[str]) -> None:
    class Wrong(Upper):
        def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
            return too if "bad" in rows else rows

    items, faults = run(request(0, "a"), request(1, "bad", "b"), request(2, "c"), model=Wrong())
    assert [(offset, fault.code) for offset, fault in faults.items()] == [(1, Code.MODEL_ERROR)]
    assert {offset: item.rows for offset, item in items.items()} == {0: ["a"], 2: ["c"]}


SECRET = "/srv/models/key.pem of 'another client wrote this'"


@pytest.mark.parametrize(
    ("detail", "has", "lacks"),
    [
        pytest.param("none", [], ["ValueError", "/srv", "another client"], id="none"),
        pytest.param("message", ["ValueError"], ["/srv", "another client", "Traceback"], id="message"),
        pytest.param("traceback", ["Traceback", "test_preprocess.py", SECRET], [], id="traceback"),
    ],
)
def test_001_11_a_client_is_told_of_an_exception_in_preprocess_as_much_as_is_configured(
    detail: Detail, has: Sequence[str], lacks: Sequence[str]
) -> None:
    fault = refused(make_record(0, value=b"bad"), model=Upper(bad=ValueError(SECRET)), detail=detail)
    assert fault.message.startswith("the model could not prepare this request")
    assert [words for words in has if words not in fault.message] == []
    assert [words for words in lacks if words in fault.message] == []


@pytest.mark.parametrize("detail", ["none", "message", "traceback"])
def test_a_refusal_is_the_models_own_word_to_the_client_whatever_is_told_of_exceptions(detail: Detail) -> None:
    fault = refused(make_record(0, value=b"bad"), model=Upper(bad=TooLarge("900 tokens")), detail=detail)
    assert fault.message == "900 tokens"


def test_what_does_not_fit_into_memory_while_it_is_prepared_is_told_so() -> None:
    fault = refused(make_record(0, value=b"bad"), make_record(1), model=Upper(bad=MemoryError()))
    assert fault.code is Code.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(FatalError("the licence has run out"), FatalError, id="the model's own word"),
        pytest.param(RuntimeError("CUDA error: device-side assert triggered"), DeviceLost, id="the device is lost"),
    ],
)
@pytest.mark.parametrize("verb", ["preprocess", "cost"])
def test_a_fatal_error_of_the_model_answers_nobody(error: Exception, kind: type[Exception], verb: str) -> None:
    class Fatal(Upper):
        def cost(self, row: Any) -> int:
            raise error

    model = Upper(bad=error) if verb == "preprocess" else Fatal()
    with pytest.raises(kind):
        run(make_record(0), make_record(1, value=b"bad"), model=model)


# --- the stage ---


class Stage:
    """A `Preprocess` whose feed, flow and neighbours can be looked at."""

    def __init__(
        self,
        model: Model | None = None,
        takes: Callable[[Claim], bool] = any_claim,
        feed_takes: Callable[[Claim], bool] = any_claim,
        threads: int = 1,
        chunk: int = 4,
    ) -> None:
        self.window = Window(Rules())
        self.flow = Flow(1000, 1_000_000)
        self.failure = Failure()
        self.metrics = Metrics()
        self.published: list[Outcome] = []
        self.given_up: list[tuple[int, str]] = []
        self.model = model or Upper()
        self.dog = Watched()
        self.feed = Feed(self.window, feed_takes, ManualClock(), expiry=NO_EXPIRY)
        self.stage = Preprocess(
            Preprocessor(self.model, Served("shout", "3"), Routes(["replies"]), 32, 5_000_000),
            self.feed,
            self.flow,
            takes,
            self.published.extend,
            lambda records, reason: self.given_up.extend((record.offset, reason) for record in records),
            self.metrics,
            self.failure,
            threads,
            chunk,
            self.dog,
            ManualClock(),
        )

    def run(self, *records: Record) -> None:
        """Submit, and end the stage once all is prepared."""
        self.flow.enter(records)
        with self.stage:
            self.stage.submit(records)

    @property
    def waiting(self) -> list[int]:
        self.window.drain()
        batch = self.window.take(0.0)
        return [] if batch is None else [item.record.offset for item in batch.items]


def test_the_stage_lets_items_wait_and_publishes_faults() -> None:
    made = Stage()
    made.run(make_record(0), make_record(1, value=b"{"), make_record(2))
    assert made.waiting == [0, 2]
    assert [outcome.record.offset for outcome in made.published] == [1]
    assert made.given_up == []


def test_nobody_waits_in_the_window_for_what_became_a_fault() -> None:
    made = Stage()
    made.run(make_record(0), make_record(1, value=b"{"))
    assert made.window._reached == {make_record(0).claim: 2}


def test_the_stage_prepares_chunk_by_chunk() -> None:
    model = Upper()
    Stage(model, chunk=3).run(*(make_record(offset, value=b"%d" % offset) for offset in range(8)))
    assert [rows for rows, _ in model.calls] == [["0", "1", "2"], ["3", "4", "5"], ["6", "7"]]


def test_a_model_may_bound_the_rows_of_a_call() -> None:
    class Few(Upper):
        max_preprocess_rows: ClassVar[int | None] = 8

    made = Stage(model := Few(), chunk=100)
    made.run(request(0, *["a"] * 10), request(1, *["b"] * 9), make_record(2))
    assert [len(rows) for rows, _ in model.calls] == [8, 8, 4]
    assert made.dog.seen.count("armed") == 3


@pytest.mark.parametrize("error", [None, FatalError("no more")], ids=["prepared", "raised"])
def test_every_chunk_is_watched_while_it_is_prepared(error: Exception | None) -> None:
    stage = Stage(Upper(bad=error) if error else None)
    stage.run(make_record(0, value=b"bad" if error else b"text"))
    assert stage.dog.seen == ["armed", "off"]


PICTURE = [("content-type", b"image/png")]


@pytest.mark.parametrize(
    ("records", "calls"),
    [
        pytest.param([make_record(at) for at in range(30)], [30], id="as usual"),
        pytest.param([make_record(at, value=b"picture", headers=PICTURE) for at in range(20)], [8, 8, 4], id="files"),
        pytest.param([request(0, *["a" * 600_000] * 3), make_record(3)], [1, 1, 2], id="large texts"),
        pytest.param([make_record(0, value=b"a" * 3_000_000)], [1], id="one that is larger"),
    ],
)
def test_of_large_requests_a_few_rows_are_prepared_in_the_time_that_is_allowed_for_a_chunk(
    records: list[Record], calls: list[int]
) -> None:
    """Or the worker would end for what its clients send together, though nothing hangs."""
    made = Stage(model := Upper(), chunk=100)
    made.run(*records)
    assert [len(rows) for rows, _ in model.calls] == calls
    assert made.waiting == [record.offset for record in records]
    assert made.dog.seen == ["armed"] * len(calls) + ["off"]


def test_what_is_prepared_one_by_one_has_the_time_of_a_chunk_each() -> None:
    made = Stage(Upper(bad=ValueError("no")))
    made.run(make_record(0), make_record(1, value=b"bad"), make_record(2))
    assert made.waiting == [0, 2]
    assert made.dog.seen[:4] == ["armed"] * 4


def test_the_stage_counts_the_rows_of_what_it_decoded() -> None:
    made = Stage()
    made.run(request(0, *"abcde"), request(1, "a"))
    assert made.flow.rows == 6


def test_records_of_a_revoked_partition_are_given_up_before_the_model_sees_them() -> None:
    made = Stage(takes=lambda claim: claim.partition == 0)
    made.run(make_record(0), make_record(1, partition=1, value=b"{"), make_record(2, partition=1), make_record(3))
    assert made.given_up == [(1, "revoked"), (2, "revoked")]
    assert made.waiting == [0, 3]
    assert made.published == []


def test_items_whose_partition_was_revoked_while_they_were_prepared_are_given_up() -> None:
    made = Stage(feed_takes=lambda claim: claim.partition == 0)
    made.run(make_record(0), make_record(1, partition=1))
    assert made.given_up == [(1, "revoked")]
    assert made.waiting == [0]


def test_what_a_model_takes_out_of_the_parameters_stays_in_those_of_the_others() -> None:
    class Pops(Upper):
        def preprocess(self, rows: Sequence[Any], parameters: Any) -> Sequence[Any]:
            parameters.pop("k")
            return rows

    body = b'{"inputs": ["a"], "parameters": {"k": 3}}'
    items, _ = run(make_record(0, value=body), make_record(1, value=body), model=Pops())
    assert [item.parameters for item in items.values()] == [{"k": 3}, {"k": 3}]


def test_two_threads_prepare_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=10)

    class Meeting(Upper):
        def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
            meet.wait()
            return rows

    made = Stage(Meeting(), threads=2, chunk=1)
    made.run(make_record(0), make_record(1))
    assert sorted(made.waiting) == [0, 1]


def test_a_fatal_error_of_the_model_ends_the_worker() -> None:
    made = Stage(Upper(bad=FatalError("the licence has run out")))
    made.run(make_record(0, value=b"bad"))
    assert made.published == []
    with pytest.raises(FatalError, match="licence"):
        made.failure.check()


def test_what_escapes_the_stage_ends_the_worker() -> None:
    made = Stage(takes=lambda claim: 1 // claim.partition > 0)
    made.run(make_record(0))
    with pytest.raises(ZeroDivisionError):
        made.failure.check()


def test_a_reply_topic_that_is_not_there_is_refused_to_the_default_one_and_nobody_waits() -> None:
    asked: list[str] = []

    def has_topic(topic: str) -> bool:
        asked.append(topic)
        return topic != "gone"

    preprocessor = Preprocessor(
        Upper(), Served("m", "1"), Routes(["replies", "other", "gone"]), 32, 1000, has_topic=has_topic
    )
    items, faults = preprocessor.run(
        [
            request(0, "a"),
            request(1, "b", headers=[("reply-topic", b"gone"), ("reply-partition", b"3")]),
            request(2, "c", headers=[("reply-topic", b"other")]),
            request(3, "d", headers=[("reply-topic", b"replies")]),
        ]
    )
    assert [item.record.offset for item in items] == [0, 2, 3]
    [fault] = faults
    assert (fault.record.offset, fault.code) == (1, Code.INVALID_REQUEST)
    assert "'gone'" in fault.message
    assert (fault.envelope.reply_topic, fault.envelope.reply_partition) == (None, None)
    assert asked == ["gone", "other"], "the default is not asked for"


def test_001_12_a_request_with_too_many_behind_it_is_rejected() -> None:
    preprocessor = Preprocessor(
        Upper(), Served("m", "1"), Routes(["replies"]), 32, 1000, max_backlog=2, behind=lambda record: 4 - record.offset
    )
    items, faults = preprocessor.run([request(offset, "a") for offset in range(5)])
    assert [item.record.offset for item in items] == [2, 3, 4]
    assert {(fault.record.offset, fault.code) for fault in faults} == {(0, Code.REJECTED), (1, Code.REJECTED)}
    assert faults[0].message == "4 requests wait behind this one; limits.max_backlog is 2"


@pytest.mark.parametrize("kind", [np.int64, np.float32, float])
def test_a_cost_is_a_plain_integer_whatever_number_the_model_gives(kind: Callable[[float], Any]) -> None:
    model = Upper()
    model.cost = lambda row: kind(len(row) + 0.5)  # type: ignore[method-assign]
    items, _ = run(make_record(0, value=b"a"), make_record(1, value=b"abc"), model=model)
    assert [(item.cost, item.total_cost) for item in items.values()] == [(1, 1), (3, 3)]
    assert {type(item.cost) for item in items.values()} == {int}


def test_a_cost_that_is_no_number_is_the_requests_own_fault() -> None:
    model = Upper()
    cost: Any = lambda row: float("nan") if row == "B" else 1  # noqa: E731
    model.cost = cost  # type: ignore[method-assign]
    items, faults = run(make_record(0, value=b"a"), make_record(1, value=b"b"), model=model)
    assert ([*items], [*faults]) == ([0], [1])
    assert faults[1].code is Code.MODEL_ERROR


class Refusing(Upper):
    """Gives back in a row's place what it raised itself."""

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        refused = [self._refuse() for _ in rows]
        assert len(refused) == len(rows)
        return refused

    def _refuse(self) -> RequestError:
        try:
            try:
                raise ValueError("no picture")
            except ValueError as error:
                raise DecodeError("no picture") from error
        except RequestError as error:
            return error


@pytest.mark.parametrize(
    ("value", "model"),
    [
        pytest.param(b'{"inputs": ', Upper(), id="no JSON"),
        pytest.param(b'{"image": "-"}', Upper(), id="no base64"),
        pytest.param(b'{"text": "a", "image": ""}', Upper(), id="two inputs"),
        pytest.param(b'{"text": "a", "model": "another"}', Upper(), id="another model"),
        pytest.param(b'{"text": "a"}', Upper(a=ValueError("no")), id="the model raises"),
        pytest.param(b'{"text": "a"}', Refusing(), id="the model refuses"),
    ],
)
def test_what_is_refused_leaves_nothing_for_the_collector(value: bytes, model: Model) -> None:
    """It looks seldom while a worker runs, and in its cycles whole records would wait, counted by nobody."""
    run(make_record(value=value), model=model)
    gc.collect()
    gc.disable()
    try:
        _, faults = run(make_record(value=value), model=model)
        assert len(faults) == 1
        del faults
        assert gc.collect() == 0
    finally:
        gc.enable()
