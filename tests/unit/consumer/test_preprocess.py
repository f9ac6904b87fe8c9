"""From records to items and faults; a bad record is its own fault and nobody else's."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

import forebay_schemas as schemas
from forebay_consumer import Model
from forebay_consumer.preprocess import Preprocessor
from forebay_consumer.record import Record
from forebay_consumer.routes import Routes
from forebay_schemas import Code, InvalidRequest
from support.consumer import make_record


class Upper(Model):
    """Prepares by upper-casing; `refuse` is refused, `burst` raises for the whole call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        self.calls.append(len(rows))
        if "burst" in rows:
            raise RuntimeError("/secret/path")
        return [InvalidRequest("refused") if row == "refuse" else str(row).upper() for row in rows]

    def cost(self, row: Any) -> int:
        return len(row)

    def forward(self, batch: Any) -> Any:
        return batch


def preprocessor(model: Model, **limits: Any) -> Preprocessor:
    bounds = {"max_rows": 4, "max_bytes": 1000, **limits}
    return Preprocessor(model, schemas.Model("upper", "2"), Routes(["replies"]), clock=lambda: 1000.0, **bounds)


def body(*rows: str, **fields: Any) -> bytes:
    return orjson.dumps({"inputs": rows, **fields})


def test_good_records_become_items_with_their_cost() -> None:
    items, faults = preprocessor(Upper()).run([make_record(0, value=b"a"), make_record(1, value=body("bb", "cccc"))])
    assert faults == []
    assert [(list(item.rows), item.cost) for item in items] == [(["A"], 1), (["BB", "CCCC"], 4)]


@pytest.mark.parametrize(
    ("record", "code", "words"),
    [
        pytest.param(make_record(value=b"refuse"), Code.INVALID_REQUEST, ["refused"], id="by the model"),
        pytest.param(make_record(value=b"burst"), Code.MODEL_ERROR, ["RuntimeError"], id="the model raises"),
        pytest.param(make_record(value=b"\xff"), Code.INVALID_REQUEST, ["UTF-8"], id="undecodable"),
        pytest.param(make_record(value=body(*"abcde")), Code.TOO_LARGE, ["5 rows", "max_batch_size is 4"], id="rows"),
        pytest.param(make_record(value=b"a" * 1001), Code.TOO_LARGE, ["1001", "1000"], id="bytes"),
        pytest.param(make_record(value=body("a", model="lower")), Code.UNSUPPORTED, ["lower", "upper"], id="model"),
        pytest.param(
            make_record(headers=[("model-version", b"1")]), Code.UNSUPPORTED, ["'1'", "'2'"], id="model version"
        ),
        pytest.param(make_record(headers=[("reply-topic", b"x")]), Code.INVALID_REQUEST, ["'x'"], id="reply topic"),
        pytest.param(make_record(headers=[("deadline-ms", b"999000")]), Code.EXPIRED, ["999000"], id="expired"),
        pytest.param(make_record(fault="headers: not UTF-8"), Code.INVALID_REQUEST, ["headers"], id="header names"),
    ],
)
def test_one_bad_record_among_32_is_its_own_fault(record: Record, code: Code, words: list[str]) -> None:
    good = [make_record(offset, value=b"good") for offset in range(1, 32)]
    items, faults = preprocessor(Upper()).run([*good[:16], record, *good[16:]])
    assert [item.record for item in items] == good
    (fault,) = faults
    assert fault.record is record
    assert fault.code is code
    assert all(word in fault.message for word in words), fault.message
    assert "/secret/path" not in fault.message


def test_records_with_equal_parameters_are_prepared_in_one_call() -> None:
    model = Upper()
    values = [b"a", body("b", parameters={"k": 1}), b"c", body("d", "e", parameters={"k": 1})]
    items, _ = preprocessor(model).run([make_record(number, value=value) for number, value in enumerate(values)])
    assert sorted(model.calls) == [2, 3]
    assert {item.record.offset: item.key for item in items}[1] == {item.record.offset: item.key for item in items}[3]
    assert len({item.key for item in items}) == 2


def test_a_deadline_that_is_still_ahead_is_no_fault() -> None:
    items, faults = preprocessor(Upper()).run([make_record(headers=[("deadline-ms", b"1000001")])])
    assert (len(items), faults) == (1, [])


def test_a_wrong_number_of_prepared_rows_fails_the_request_and_not_the_worker() -> None:
    class Short(Upper):
        def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
            return [] if "short" in rows else rows

    items, faults = preprocessor(Short()).run([make_record(0, value=b"short"), make_record(1, value=b"fine")])
    assert [item.record.offset for item in items] == [1]
    assert [fault.code for fault in faults] == [Code.MODEL_ERROR]
