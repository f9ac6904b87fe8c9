"""From records to items: decode, validate, tokenise or decode images; many at once, never one call a record."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog

import forebay_schemas as schemas
from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.detail import Detail, tell
from forebay_consumer.errors import BatchError, FatalError
from forebay_consumer.expiry import NO_EXPIRY, Expiry
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.frames import forget_frames
from forebay_consumer.logs import where_raised
from forebay_consumer.meaning import translated
from forebay_consumer.metrics import Metrics
from forebay_consumer.model import Model, costs_of
from forebay_consumer.record import Claim, Fault, Item, Outcome, Record
from forebay_consumer.routes import Routes
from forebay_consumer.watchdog import Watchdog
from forebay_schemas import (
    Code,
    Content,
    Envelope,
    Expired,
    InvalidRequest,
    Rejected,
    RequestError,
    TooLarge,
    Unsupported,
    read_envelope,
    read_request,
)


class NoSuchReplyTopic(InvalidRequest):
    """Allowed, and not there; the refusal goes to the default topic."""


_Decoded = tuple[Record, Envelope, Content]
_claim = attrgetter("claim")
_REFUSED: Final = 0  # in place of the cost of a row that the model refused
_AT_ONCE_SIZE: Final = 1 << 20  # characters and bytes of rows are prepared before the watchdog hears of it, or one row
_AT_ONCE_FILES: Final = 8  # rows that are bytes, likewise: what they hold may be thousands of times as large


class Preprocessor:
    """Turns a chunk of records into items and faults. A bad record becomes its own fault; neighbours are untouched.

    Args:
        model: its `preprocess` and `cost` are called here, and nothing else of it.
        served: the name and version that requests may ask for.
        max_rows, max_bytes: a request with more is `too_large`; one with more bytes is not even parsed.
        expiry: which requests come too late.
        detail: how much of an exception of the model the client is told.
        has_topic: whether the broker has a reply topic; asked of every one but the default.
        max_backlog: with more records of its partition `behind` it, a request is rejected.
    """

    def __init__(
        self,
        model: Model,
        served: schemas.Model,
        routes: Routes,
        max_rows: int,
        max_bytes: int,
        expiry: Expiry = NO_EXPIRY,
        detail: Detail = "message",
        has_topic: Callable[[str], bool] = lambda _: True,
        max_backlog: int | None = None,
        behind: Callable[[Record], int] = lambda _: 0,
    ) -> None:
        self._max_backlog = max_backlog
        self._behind = behind
        self._has_topic = has_topic
        self._model = model
        self._served = served
        self._routes = routes
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._expiry = expiry
        self._has_ttl = expiry.ttl_s is not None
        self._detail = detail
        self._log = structlog.get_logger()

    def run(
        self, records: Sequence[Record], progress: Callable[[], None] = lambda: None
    ) -> tuple[list[Item], list[Fault]]:
        """One item or one fault per record.

        Args:
            progress: called between two calls of the model: what it prepares next has all the time of its own.
        Raises:
            FatalError: from the model; nothing may be concluded about any record.
        """
        groups: dict[bytes, list[_Decoded]] = {}
        faults: list[Fault] = []
        for record in records:
            value = record.value
            fits = value is None or len(value) <= self._max_bytes
            envelope, content = read_request(record) if fits else self._too_large(record)
            try:
                content = self._admit(record, envelope, content)
                key = _parameters_key(content.parameters) if content.parameters else b""
            except RequestError as error:
                forget_frames(error)
                if isinstance(error, NoSuchReplyTopic):
                    envelope = envelope._replace(reply_topic=None, reply_partition=None)
                faults.append(Fault(record, envelope, error.code, error.message, "decode", 0))
                continue
            groups.setdefault(key, []).append((record, envelope, content))
        items: list[Item] = []
        for key, group in groups.items():
            self._prepare(key, group, items, faults, progress)
        return items, faults

    def _too_large(self, record: Record) -> tuple[Envelope, TooLarge]:
        """Parsing takes many times the bytes; the envelope comes from headers and key alone."""
        size = len(record.value or b"")
        return read_envelope(record), TooLarge(f"value: {size} bytes; limits.max_request_bytes is {self._max_bytes}")

    def _admit(self, record: Record, envelope: Envelope, content: Content | RequestError) -> Content:
        """Refuse what need not reach the model."""
        if record.fault is not None:
            raise InvalidRequest(record.fault)
        if envelope.reply_topic is not None:
            topic = self._routes.resolve(envelope.reply_topic)
            if topic != self._routes.default and not self._has_topic(topic):
                raise NoSuchReplyTopic(f"header reply-topic: there is no topic {topic!r}; leave it out for the default")
        if isinstance(content, RequestError):
            raise content
        if envelope.model is not None and envelope.model != self._served.name:
            raise Unsupported(f"model {envelope.model!r:.80} is not served here; served is {self._served.name!r}")
        if envelope.model_version is not None and envelope.model_version != self._served.version:
            raise Unsupported(
                f"model-version {envelope.model_version!r:.80} is not served here; served is {self._served.version!r}"
            )
        if len(content.inputs) > self._max_rows:
            raise TooLarge(f"inputs: {len(content.inputs)} rows in one request; max_batch_size is {self._max_rows}")
        if self._max_backlog is not None and (behind := self._behind(record)) > self._max_backlog:
            raise Rejected(f"{behind} requests wait behind this one; limits.max_backlog is {self._max_backlog}")
        may_lapse = envelope.deadline_s is not None or self._has_ttl
        if may_lapse and (lapsed := self._expiry.lapsed(record, envelope)) is not None:
            raise Expired(f"{lapsed} when the request was taken up")
        return content

    def _prepare(
        self,
        key: bytes,
        group: Sequence[_Decoded],
        items: list[Item],
        faults: list[Fault],
        progress: Callable[[], None],
    ) -> None:
        """Prepare requests with equal parameters together; when that raises, one by one."""
        parameters = group[0][2].parameters
        prepared: list[Any] = []
        costs: list[int] = []
        try:
            for rows in self._slices([row for _, _, content in group for row in content.inputs]):
                if prepared or faults or items:
                    progress()
                of_rows = self._call(rows, parameters)
                prepared += of_rows[0]
                costs += of_rows[1]
        except FatalError:
            raise
        except Exception as error:
            if len(group) == 1:
                faults.append(self._fault(group[0], error))
                return
        else:
            self._sort(key, group, prepared, costs, items, faults)
            return
        for decoded in group:  # outside of `except`: what is raised now has nothing to do with the first error
            progress()
            self._prepare(key, [decoded], items, faults, progress)

    def _sort(
        self,
        key: bytes,
        group: Sequence[_Decoded],
        prepared: Sequence[Any],
        costs: Sequence[int],
        items: list[Item],
        faults: list[Fault],
    ) -> None:
        """Give each request its own prepared rows, or its refusal."""
        start = 0
        for record, envelope, content in group:
            count = len(content.inputs)
            rows = prepared[start : start + count]
            if count == 1:  # as mostly
                least = most = total = costs[start]
            else:
                of_rows = costs[start : start + count]
                least, most, total = min(of_rows), max(of_rows), sum(of_rows)
            start += count
            if least == _REFUSED:
                index, refusal = next((at, row) for at, row in enumerate(rows) if isinstance(row, RequestError))
                where = f"inputs[{index}]: " if len(rows) > 1 else ""
                faults.append(Fault(record, envelope, refusal.code, where + refusal.message, "preprocess", 0))
            else:
                # A key of its own keeps it out of every other's pass.
                company = (key, record.claim, record.offset) if record.alone else key
                items.append(Item(record, envelope, rows, most, total, content.parameters, company))

    def _slices(self, rows: list[Any]) -> Iterator[list[Any]]:
        """All rows at once, where they are as small as usual: else some of them, one after another."""
        most = self._model.max_preprocess_rows
        size = files = start = 0
        for place, row in enumerate(rows):
            if not isinstance(row, str | bytes):
                if most is None:
                    continue
                length = 0
            else:
                length = len(row)
            size += length
            files += isinstance(row, bytes)
            if place > start and (
                size > _AT_ONCE_SIZE or files > _AT_ONCE_FILES or (most is not None and place - start >= most)
            ):
                yield rows[start:place]
                start, size, files = place, length, int(isinstance(row, bytes))
        yield rows[start:] if start else rows

    def _call(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> tuple[list[Any], list[int]]:
        """The prepared rows and their costs; a row that the model refused has a cost of its own kind."""
        with translated():
            prepared = list(self._model.preprocess(rows, dict(parameters)))  # a copy: others have the same
            costs = costs_of(self._model, [row for row in prepared if not isinstance(row, RequestError)])
            if len(costs) < len(prepared):
                each = iter(costs)
                costs = [_REFUSED if isinstance(row, RequestError) else next(each) for row in prepared]
        if len(prepared) != len(rows):
            raise ValueError(f"preprocess gave {len(prepared)} rows for {len(rows)}; expected one per row, in order")
        if _REFUSED in costs:
            for row in prepared:
                if isinstance(row, RequestError):
                    forget_frames(row)
        return prepared, costs

    def _fault(self, decoded: _Decoded, error: Exception) -> Fault:
        record, envelope, _ = decoded
        if isinstance(error, RequestError):
            return Fault(record, envelope, error.code, error.message, "preprocess", 0)
        self._log.warning(
            "preprocess raised", action="preprocess_failed", request=envelope.id, exception=where_raised(error)
        )
        message = tell("the model could not prepare this request", error, self._detail)
        code = error.code if isinstance(error, BatchError) else Code.MODEL_ERROR
        return Fault(record, envelope, code, message, "preprocess", 0)


def _parameters_key(parameters: Mapping[str, Any]) -> bytes:
    """Equal for equal parameters, and never empty."""
    try:
        return orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # orjson reads deeper than it writes
        raise InvalidRequest("body parameters: nested too deeply") from None


class Preprocess:
    """The stage: threads that run a `Preprocessor` on chunks and fill the feed. A context manager."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        feed: Feed,
        flow: Flow,
        takes: Callable[[Claim], bool],
        publish: Callable[[Sequence[Outcome]], None],
        give_up: Callable[[Sequence[Record], str], None],
        metrics: Metrics,
        failure: Failure,
        threads: int,
        chunk: int,
        watchdog: Watchdog,
        clock: Clock = monotonic,
    ) -> None:
        self._preprocessor = preprocessor
        self._feed = feed
        self._flow = flow
        self._takes = takes
        self._publish = publish
        self._give_up = give_up
        self._metrics = metrics
        self._chunk = chunk
        self._watchdog = watchdog
        self._clock = clock
        self._chunks: SimpleQueue[Sequence[Record] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(
                target=failure.guard(partial(self._run, number), "preprocess"), name=f"preprocess-{number}", daemon=True
            )
            for number in range(threads)
        ]

    def submit(self, records: Sequence[Record]) -> None:
        """Hand records over; returns at once. The flow bounds how many there are."""
        for start in range(0, len(records), self._chunk):
            self._chunks.put(records[start : start + self._chunk])

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._chunks.put(None)
        if kind is None:
            for thread in self._threads:
                thread.join()

    def _run(self, thread: int) -> None:
        while (records := self._chunks.get()) is not None:
            started = self._clock()
            kept: list[Record] = []
            gone: list[Record] = []
            for claim, of_claim in groupby(records, _claim):
                (kept if self._takes(claim) else gone).extend(of_claim)
            self._give_up(gone, "revoked")
            records = kept
            self._watchdog.arm(thread)
            try:
                items, faults = self._preprocessor.run(records, partial(self._watchdog.arm, thread))
            finally:
                self._watchdog.disarm(thread)
            took_s = self._clock() - started
            self._metrics.preprocess.observe(took_s)
            if records:
                self._metrics.queue.observe(records[0].queue_s or 0.0)
            for item in items:
                item.preprocess_s = took_s
                if len(item.rows) != item.record.rows:
                    self._flow.widen(item.record, len(item.rows))
            if faults:
                self._publish(faults)
                self._feed.passed([fault.record for fault in faults])
            refused = self._feed.put(items)
            if refused:
                self._give_up([item.record for item in refused], "revoked")
