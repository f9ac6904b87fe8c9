"""Requests to measure with: from a file, from the topic, or the model's own samples; as items, like a worker's."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from forebay_consumer.clock import monotonic
from forebay_consumer.config import WorkerSettings
from forebay_consumer.dlq.topic import DeadLetterTopic, Span
from forebay_consumer.errors import BadConfig, FatalError
from forebay_consumer.meaning import translated
from forebay_consumer.model import Model, costs_of
from forebay_consumer.preprocess import Preprocessor
from forebay_consumer.record import Claim, Item, Record
from forebay_consumer.routes import Routes
from forebay_schemas import Envelope, RequestError
from forebay_schemas import Model as Served
from forebay_schemas.headers import CONTENT_TYPE, RawHeaders, last_values

MOST: Final = 1000  # requests; pictures are held decoded


class Raw(NamedTuple):
    """A request before it is decoded, and where it is from, for people."""

    where: str
    value: bytes
    headers: RawHeaders | None = None


class Prepared(NamedTuple):
    """Items in order of arrival.

    Attributes:
        refused: how many requests a worker would answer with an error.
        refusal: the first of them: where it is from, and why.
        preprocess_s: seconds to decode and prepare them all.
    """

    items: Sequence[Item]
    refused: int
    refusal: str | None
    preprocess_s: float


def from_file(file: Path) -> list[Raw]:
    """One JSON body, or plain text, a line; empty lines do not count, and no more than `MOST` are read.

    Raises:
        BadConfig: the file cannot be read, or holds nothing.
    """
    found: list[Raw] = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if value := line.strip():
                    found.append(Raw(f"{file}: line {number}", value))
                if len(found) == MOST:
                    break
    except OSError as error:
        raise BadConfig(f"--requests {file}: {error.strerror}") from error
    if not found:
        raise BadConfig(f"--requests {file}: no line of it is a request; one JSON body or text a line is")
    return found


def from_topics(kafka: Mapping[str, Any], topics: Sequence[str], count: int) -> list[Raw]:
    """The last `count` records of each partition, by their timestamps; joins no group and commits nothing.

    Raises:
        FatalError: no broker answers, there is no such topic, or nothing is in it.
    """
    timed: list[tuple[int, Raw]] = []
    for topic in topics:
        # The reader of dead letters reads any topic; it commits only when it is told to.
        with DeadLetterTopic(kafka, topic, str(kafka["group.id"])) as reader:
            for partition in reader.partitions():
                low, end = reader.span(partition)
                for entry in reader.read(partition, Span(max(low, end - count), end)):
                    raw = Raw(f"{topic}-{partition}@{entry.offset}", entry.value or b"", _kept(entry.headers))
                    timed.append((entry.timestamp_ms or 0, raw))
    if not timed:
        raise FatalError(f"Kafka: {', '.join(topics)}: no request is there; name a file by --requests")
    timed.sort(key=lambda each: each[0])  # stable: within a partition the order stays
    return [raw for _, raw in timed[-MOST:]]


def _kept(headers: RawHeaders) -> RawHeaders:
    """How the value is to be read; deadlines have passed by now, and nobody is answered."""
    found = last_values(headers).get(CONTENT_TYPE)
    return [] if found is None else [(CONTENT_TYPE, found)]


def prepare(requests: Sequence[Raw], model: Model, settings: WorkerSettings, most: int) -> Prepared:
    """As a worker's preprocessing threads do, in chunks as large as theirs.

    Args:
        model: loaded.
        most: rows that a request may have.
    Raises:
        FatalError: from the model, or every request is refused.
    """
    preprocessor = Preprocessor(
        model,
        Served(settings.model.name, settings.model.version),
        Routes(settings.topics.replies),
        most,
        settings.limits.max_request_bytes,
    )
    records = [_record(number, raw.value, raw.headers) for number, raw in enumerate(requests)]
    began = monotonic()
    items: list[Item] = []
    refusals: list[tuple[int, str]] = []
    for start in range(0, len(records), 32):
        some, faults = preprocessor.run(records[start : start + 32])
        items += some
        refusals += [(fault.record.offset, f"{fault.code.value}: {fault.message}") for fault in faults]
    took_s = monotonic() - began
    first = min(refusals, default=None)
    refusal = None if first is None else f"{requests[first[0]].where}: {first[1]}"
    if not items:
        raise FatalError(f"every request would be refused; the first is {refusal}")
    return Prepared(sorted(items, key=lambda item: item.record.offset), len(refusals), refusal, took_s)


def prepare_samples(rows: Sequence[Any], model: Model) -> Prepared:
    """One request a row.

    Raises:
        BadConfig: there are no samples.
        FatalError: the model prepares none of them.
    """
    if not rows:
        raise BadConfig(
            "there is nothing to measure with: the model has no samples; give --requests, --topic-sample or "
            "model.warmup.samples"
        )
    began = monotonic()
    try:
        with translated():
            prepared = model.preprocess(rows, {})
            fit = [(number, row) for number, row in enumerate(prepared) if not isinstance(row, RequestError)]
            costs = costs_of(model, [row for _, row in fit])
            good = [
                Item(_record(number, b"", None), Envelope(str(number)), [row], cost, cost, key=b"")
                for (number, row), cost in zip(fit, costs, strict=True)
            ]
    except FatalError:
        raise
    except Exception as error:
        raise FatalError(f"the model cannot prepare its samples: {type(error).__name__}: {error}") from error
    took_s = monotonic() - began
    refusal = next((f"sample {n}: {row}" for n, row in enumerate(prepared) if isinstance(row, RequestError)), None)
    if not good:
        raise FatalError(f"the model refuses every sample; the first is {refusal}")
    return Prepared(good, len(prepared) - len(good), refusal, took_s)


Prepare = Callable[[Model], Prepared]
"""What to measure with, as that model prepares it."""


def _record(number: int, value: bytes, headers: RawHeaders | None) -> Record:
    return Record(Claim("tune", 0, 1), number, None, value, headers, None, None, 0.0, len(value))
