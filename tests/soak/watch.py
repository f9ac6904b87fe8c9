"""The threads that read: requests as they are in the log, replies, dead letters, and the committed offsets."""

import json
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from forebay_schemas import Failure, read_reply
from forebay_schemas.headers import REQUEST_ID, last_values
from soak.history import Answered, Event, Letter, Logged, Look, Place
from soak.recorder import Recorder
from soak.requests import digest_of, digest_of_value

LOOK_EVERY_S: Final = 0.1
ASK_TIMEOUT_S: Final = 5.0
_Ends = Mapping[tuple[str, int], int]


class _Glance:
    """Committed offsets, and where every topic ended *after* they were read."""

    def __init__(self, committed: Mapping[int, int], ends: _Ends) -> None:
        self.committed = committed
        self.ends = ends


class Watch:
    """A context manager; leaving it ends the threads.

    One thread asks for the committed offsets, then for the ends of all topics. The other reads all topics, and
    writes a look into the history only when it has read every topic to those ends: all that was answered when the
    offsets were read stands before it. Aborted replies are not seen (`read_committed`), and an open transaction
    delays the look until it ends.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group: str,
        topics: Mapping[str, int],
        requests: str,
        replies: str,
        dead_letters: str,
        recorder: Recorder,
        *,
        commits: bool,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._dead_letters = dead_letters
        self._topics = topics
        self._recorder = recorder
        self._commits = commits
        shared = {"bootstrap.servers": bootstrap_servers, "enable.auto.commit": False, "log_level": 0}
        shared["reconnect.backoff.max.ms"] = 500
        # An asker that reads committed only would wait for the end of every transaction that holds offsets.
        self._asker: Any = Consumer({**shared, "group.id": group, "isolation.level": "read_uncommitted"})
        self._reader: Any = Consumer(
            {
                **shared,
                "group.id": f"{group}-watch",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            }
        )
        self._read_to: dict[tuple[str, int], int] = dict.fromkeys(self._partitions(), 0)
        self._glance: _Glance | None = None  # the asker fills it, the reader empties it
        self._taken = threading.Condition()
        self._looks = 0
        self._last: _Glance | None = None
        self._unheard = "nothing was asked yet"  # why the asker has no glance, when it has none
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
            for name, run in (("asker", self._ask), ("reader", self._read))
        ]

    def check(self) -> None:
        """Raise what ended a thread, if anything did."""
        if self._error is not None:
            raise self._error

    def wait_look(self, timeout_s: float) -> bool:
        """Block until a look that began after this call is in the history; False when none came in time."""
        with self._taken:
            wanted = self._looks + 2  # the next one may have begun already
            return self._taken.wait_for(lambda: self._looks >= wanted or self._error is not None, timeout_s)

    def waits_for(self) -> str:
        """What the next look waits for, in words."""
        glance = self._glance
        if glance is None:
            return f"the broker: {self._unheard}"
        behind = [
            f"{topic} {partition} read to {self._read_to[topic, partition]} of {end}"
            for (topic, partition), end in glance.ends.items()
            if self._read_to[topic, partition] < end
        ]
        return ", ".join(behind) or "the reader's next turn"

    def uncommitted(self) -> int:
        """By the last look: requests in the log that no commit covers. 0 where nothing is committed by the mode."""
        if not self._commits or self._last is None:
            return 0
        return sum(
            end - self._last.committed.get(partition, 0)
            for (topic, partition), end in self._last.ends.items()
            if topic == self._requests
        )

    def passed_by(self) -> bool:
        """Whether, by the last look, everything is committed: what is unanswered then stays so."""
        return self._commits and self._last is not None and self.uncommitted() == 0

    def __enter__(self) -> Self:
        self._reader.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for topic, p in self._partitions()])
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._asker.close()
        self._reader.close()

    def _partitions(self) -> list[tuple[str, int]]:
        return [(topic, partition) for topic, count in self._topics.items() for partition in range(count)]

    def _guard(self, run: Any) -> None:
        try:
            run()
        except BaseException as error:
            self._error = error
            with self._taken:
                self._taken.notify_all()

    # ---- the asker's thread

    def _ask(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            if self._glance is None:
                self._glance = self._look()

    def _look(self) -> _Glance | None:
        """None while the broker is away."""
        asked = [TopicPartition(self._requests, partition) for partition in range(self._topics[self._requests])]
        try:
            found = self._asker.committed(asked, timeout=ASK_TIMEOUT_S) if self._commits else []
            if errors := [str(partition.error) for partition in found if partition.error]:
                self._unheard = ", ".join(errors)
                return None
            ends = {
                (topic, p): self._asker.get_watermark_offsets(TopicPartition(topic, p), timeout=ASK_TIMEOUT_S)[1]
                for topic, p in self._partitions()
            }
        except KafkaException as error:
            self._unheard = str(error)
            return None
        return _Glance({partition.partition: partition.offset for partition in found if partition.offset >= 0}, ends)

    # ---- the reader's thread

    def _read(self) -> None:
        while not self._ended.is_set():
            events: list[Event] = []
            for message in self._reader.consume(1000, 0.05):
                events += self._seen(message)
            if events:
                self._recorder.take(*events)
            glance = self._glance
            if glance is not None and all(self._read_to[place] >= end for place, end in glance.ends.items()):
                if self._commits:
                    self._recorder.take(Look(glance.committed))
                with self._taken:
                    self._last = glance
                    self._glance = None
                    self._looks += 1
                    self._taken.notify_all()

    def _seen(self, message: Message) -> list[Event]:
        place = (message.topic() or "", message.partition() or 0)
        offset = message.offset() or 0
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # also past the markers of transactions
                self._read_to[place] = max(self._read_to[place], offset)
            elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise KafkaException(error)
            return []
        if offset < self._read_to[place]:
            return []  # read again by the client after a reconnect
        self._read_to[place] = offset + 1
        at = (place[1], offset)
        if place[0] == self._requests:
            return [Logged(_request_id(message), at)]
        return [self._answer(message, at) if place[0] == self._replies else _letter(message, at)]

    def _answer(self, message: Message, at: Place) -> Answered:
        key = (message.key() or b"").decode(errors="replace")
        try:
            reply = read_reply(message.key(), message.value(), message.headers())
        except ValueError as error:
            return Answered(key, None, f"unreadable: {error}", at=at)
        source = None if reply.source is None or reply.source[0] != self._requests else reply.source[1:]
        if key != reply.id:
            return Answered(key, source, f"the body says {reply.id}", at=at)
        if isinstance(reply, Failure):
            return Answered(key, source, code=reply.code.value, at=at)
        return Answered(key, source, digest_of(reply.outputs), at=at)


def _request_id(message: Message) -> str:
    """Of a request of ours: the header, else the key, else the id in the body."""
    named = last_values(message.headers()).get(REQUEST_ID) or message.key()
    if named is not None:
        return named.decode()
    return str(json.loads(message.value() or b"{}")["id"])


def _letter(message: Message, at: Place) -> Letter:
    headers = last_values(message.headers())
    try:
        source = (int(headers["forebay-partition"]), int(headers["forebay-offset"]))
    except (KeyError, ValueError):
        return Letter(None, "", at=at)
    return Letter(source, headers.get("forebay-code", b"").decode(), digest_of_value(message.value()), at)
