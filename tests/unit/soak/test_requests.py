"""The soak's load: what it expects of each kind of request is what worker and scripted model make of it."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

import forebay_schemas as schemas
from forebay_consumer import OutOfMemory, TransientError
from forebay_consumer.preprocess import Preprocessor
from forebay_consumer.routes import Routes
from soak import requests
from soak.requests import MIX, Request, digest_of
from support.consumer import make_record
from support.scripted import Scripted

SERVED = schemas.Model("scripted")


def answers(request: Request) -> tuple[str | None, str | None]:
    """The digest or the code with which this request is answered, without Kafka."""
    headers = [(name, value if isinstance(value, bytes) else value.encode()) for name, value in request.headers]
    record = make_record(value=request.value, headers=headers, key=request.key)
    model = Scripted(memory_rows=requests.MEMORY_ROWS)
    items, faults = Preprocessor(model, SERVED, Routes(["replies"]), requests.MAX_ROWS, 1 << 20).run([record])
    if faults:
        assert faults[0].envelope.id == request.sent.id
        return None, faults[0].code.value
    (item,) = items
    assert item.envelope.id == request.sent.id
    try:
        forward = _forward(model, item.rows)
    except OutOfMemory:
        return None, "out_of_memory"
    except RuntimeError:
        return None, "model_error"
    if len(forward) != len(item.rows):
        return None, "model_error"
    made = model.postprocess(forward, item.rows, item.parameters)
    body = schemas.result_body(item.envelope, SERVED, made, {})
    reply = schemas.read_reply(item.envelope.id.encode(), body, [])
    assert isinstance(reply, schemas.Result)
    return digest_of(reply.outputs), None


def _forward(model: Scripted, rows: Sequence[Any]) -> list[Any]:
    try:
        return model.forward(rows)
    except TransientError:
        return model.forward(rows)


@pytest.mark.parametrize("kind", MIX, ids=lambda kind: kind.__name__)
def test_the_expected_answer_is_the_one_that_comes(kind: Callable[[random.Random, str], Request]) -> None:
    request = kind(random.Random(1), "s1-7")
    digest, code = answers(request)
    assert (digest is not None and digest == request.sent.digest) or code in request.sent.codes


def test_a_request_in_a_hurry_may_expire() -> None:
    request = requests.in_a_hurry(random.Random(1), "a")
    assert request.sent.digest is not None
    assert request.sent.codes == ("expired",)


def test_an_oversize_reply_is_larger_than_the_topic_takes() -> None:
    request = requests.oversize("a")
    (output,) = Scripted().postprocess([_row(request)], [None], {})
    assert len(output["text"]) > requests.MAX_REPLY_BYTES
    assert request.sent.codes == ("too_large",)


def test_poison_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    Scripted().forward([_row(requests.poison("a"))])
    assert ended == [requests.EXIT_CODE]


def test_payloads_are_never_equal() -> None:
    chance = random.Random(1)
    made = [requests.ordinary(chance, f"s1-{number}") for number in range(2000)]
    digests = [request.sent.digest for request in made if request.sent.digest]
    assert len(set(digests)) == len(digests)
    assert len({request.sent.id for request in made}) == len(made)


def test_the_mix_holds_every_kind_of_answer() -> None:
    chance = random.Random(1)
    codes = {code for number in range(2000) for code in requests.ordinary(chance, str(number)).sent.codes}
    assert codes == {"model_error", "out_of_memory", "invalid_request", "too_large", "expired"}


def _row(request: Request) -> Mapping[str, Any]:
    (row,) = json.loads(request.value)["inputs"]
    assert isinstance(row, dict)
    return row
