"""A mixed load: requests of every kind, and for each the answers that are allowed. Pure, but for deadlines.

The answers follow from what `support.scripted` promises, worked out here without it.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soak.history import Sent

MAX_ROWS: Final = 16
"""Of one request, as the workers are configured."""
MEMORY_ROWS: Final = 12
"""What the model holds in one pass: less than a batch, so that batches are cut smaller."""
MAX_REPLY_BYTES: Final = 256 * 1024
"""Of the reply topic."""
EXIT_CODE: Final = 86
"""With which a poisonous request ends its process."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to write, and what may come back."""

    value: bytes
    headers: list[tuple[str, str | bytes]]
    key: bytes | None
    sent: Sent


def digest_of(payload: Any) -> str:
    """The digest of a reply's outputs, or of any other JSON value."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:16]


def digest_of_value(value: bytes | None) -> str:
    """The digest of raw bytes."""
    return "none" if value is None else hashlib.sha256(value).hexdigest()[:16]


def outputs(rows: Sequence[Any], **parameters: Any) -> list[dict[str, Any]]:
    """What the scripted model answers to these rows."""
    return [{"text": row, "digest": digest_of(row), **parameters} for row in rows]


def poison(id_: str) -> Request:
    """It ends the process that runs it."""
    return _json(id_, [{"exit": EXIT_CODE, "n": id_}], codes=("poison",))


def oversize(id_: str) -> Request:
    """Its reply does not fit in the reply topic."""
    return _json(id_, [{"huge": MAX_REPLY_BYTES * 2, "n": id_}], codes=("too_large",))


def ordinary(chance: random.Random, id_: str) -> Request:
    """One of the mix: mostly well-formed, a few that must be refused, a few with a deadline."""
    kinds = list(MIX)
    return chance.choices(kinds, [MIX[kind] for kind in kinds])[0](chance, id_)


# ---- the mix


def text(chance: random.Random, id_: str) -> Request:
    row = _text(chance, id_)
    return _request(id_, row.encode(), outputs([row]))


def text_named_by_key(chance: random.Random, id_: str) -> Request:
    row = _text(chance, id_)
    return _request(id_, row.encode(), outputs([row]), key=id_.encode(), named=False)


def one_row(chance: random.Random, id_: str) -> Request:
    return _json(id_, [_text(chance, id_)])


def many_rows(chance: random.Random, id_: str) -> Request:
    return _json(id_, [f"{_text(chance, id_)} {number}" for number in range(chance.randint(2, MEMORY_ROWS))])


def with_parameters(chance: random.Random, id_: str) -> Request:
    return _json(id_, [_text(chance, id_)], parameters={"mark": chance.randint(0, 2)})


def named_in_body(chance: random.Random, id_: str) -> Request:
    row = _text(chance, id_)
    return _request(id_, json.dumps({"id": id_, "inputs": [row]}).encode(), outputs([row]), named=False)


def open_inference(chance: random.Random, id_: str) -> Request:
    rows = [f"{_text(chance, id_)} {number}" for number in range(chance.randint(1, 3))]
    tensor = {"name": "text", "shape": [len(rows)], "datatype": "BYTES", "data": rows}
    return _request(id_, json.dumps({"inputs": [tensor]}).encode(), outputs(rows))


def slow(chance: random.Random, id_: str) -> Request:
    return _json(id_, [{"sleep_s": round(chance.uniform(0.05, 0.3), 2), "n": id_}])


def raising(chance: random.Random, id_: str) -> Request:
    return _json(id_, [{"raise": True, "n": id_}], codes=("model_error",))


def short_of_one(chance: random.Random, id_: str) -> Request:
    return _json(id_, [{"length": 1, "n": id_}], codes=("model_error",))


def stumbling(chance: random.Random, id_: str) -> Request:
    return _json(id_, [{"stumble": True, "n": id_}], codes=("model_error",))


def failing_once(chance: random.Random, id_: str) -> Request:
    return _json(id_, [{"transient": 1, "n": id_}])


def too_many_for_memory(chance: random.Random, id_: str) -> Request:
    return _json(id_, [f"{id_} {number}" for number in range(MEMORY_ROWS + 1)], codes=("out_of_memory",))


def refused(chance: random.Random, id_: str) -> Request:
    return _json(id_, [_text(chance, id_), {"refuse": "scripted", "n": id_}], codes=("invalid_request",))


def half_an_object(chance: random.Random, id_: str) -> Request:
    return _request(id_, b'{"inputs": ["' + id_.encode(), codes=("invalid_request",))


def no_text(chance: random.Random, id_: str) -> Request:
    return _request(id_, b"\xff\xfe" + id_.encode(), codes=("invalid_request",))


def too_many_rows(chance: random.Random, id_: str) -> Request:
    return _json(id_, [f"{id_} {number}" for number in range(MAX_ROWS + 1)], codes=("too_large",))


def too_late(chance: random.Random, id_: str) -> Request:
    return _request(id_, id_.encode(), codes=("expired",), deadline_s=time.time() - 1)


def in_a_hurry(chance: random.Random, id_: str) -> Request:
    row = _text(chance, id_)
    deadline_s = time.time() + chance.uniform(0.1, 5)
    return _request(id_, row.encode(), outputs([row]), codes=("expired",), deadline_s=deadline_s)


MIX: Final[dict[Callable[[random.Random, str], Request], float]] = {
    text: 50,
    text_named_by_key: 8,
    one_row: 10,
    many_rows: 8,
    with_parameters: 5,
    named_in_body: 4,
    open_inference: 3,
    slow: 1,
    raising: 0.7,
    short_of_one: 0.3,
    stumbling: 0.3,
    failing_once: 0.3,
    too_many_for_memory: 0.3,
    refused: 1,
    half_an_object: 1,
    no_text: 0.5,
    too_many_rows: 0.5,
    too_late: 1,
    in_a_hurry: 3,
}


def _text(chance: random.Random, id_: str) -> str:
    """Never twice the same: the payload tells whose it is."""
    return f"{id_} " + "rain " * chance.randint(0, 30)


def _json(
    id_: str, rows: Sequence[Any], *, parameters: dict[str, Any] | None = None, codes: tuple[str, ...] = ()
) -> Request:
    body = {"inputs": rows, **({"parameters": parameters} if parameters else {})}
    payload = None if codes else outputs(rows, **(parameters or {}))
    return _request(id_, json.dumps(body).encode(), payload, codes=codes)


def _request(
    id_: str,
    value: bytes,
    payload: Any = None,
    *,
    codes: tuple[str, ...] = (),
    key: bytes | None = None,
    named: bool = True,
    deadline_s: float | None = None,
) -> Request:
    headers: list[tuple[str, str | bytes]] = [("request-id", id_)] if named else []
    if deadline_s is not None:
        headers.append(("deadline-ms", str(round(deadline_s * 1000))))
    digest = None if payload is None else digest_of(payload)
    return Request(value, headers, key, Sent(id_, digest, codes, digest_of_value(value)))
