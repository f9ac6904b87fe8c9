"""Requests that once ended the worker instead of being answered."""

from typing import Any

import pytest

import forebay_schemas as schemas
from forebay_consumer import Model
from forebay_consumer.preprocess import Preprocessor
from forebay_consumer.routes import Routes
from forebay_schemas import Code
from support.consumer import make_record


class Costly(Model):
    def cost(self, row: Any) -> int:
        return int(row) if row == "7" else len(row) // (row != "no cost")

    def forward(self, batch: Any) -> Any:
        return batch


DEEP = b'{"inputs": ["a"], "parameters": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}"


@pytest.mark.parametrize(("value", "code"), [(DEEP, Code.INVALID_REQUEST), (b"no cost", Code.MODEL_ERROR)])
def test_a_request_that_breaks_the_preprocessor_is_answered_and_its_neighbour_runs(value: bytes, code: Code) -> None:
    preprocessor = Preprocessor(Costly(), schemas.Model("m"), Routes(["replies"]), 4, 10_000)
    items, faults = preprocessor.run([make_record(0, value=value), make_record(1, value=b"fine")])
    assert [fault.code for fault in faults] == [code]
    assert [item.record.offset for item in items] == [1]
