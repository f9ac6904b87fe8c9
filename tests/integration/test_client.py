"""The client on a real broker: answers come from an echo in this file, and from a real worker where it says so."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil
import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions

from forebay_local.broker import Broker
from forebay_producer import (
    BadRequest,
    BrokerUnavailable,
    Client,
    ClientClosed,
    ClientQueueFull,
    NotDelivered,
    ReplyTimeout,
    Request,
    RequestFailed,
    submit_all,
)
from forebay_schemas import (
    Code,
    Content,
    Envelope,
    Model,
    RequestError,
    Result,
    error_body,
    read_request,
    reply_headers,
    result_body,
)
from support.broker import Topics
from support.pipeline import Pipeline, Reader
from support.raw_producer import bundled_library, produce_raw
from support.scripted import digest
from support.worker import WorkerProcess, wait_until

WITHIN_S: Final = 60.0
ECHO: Final = Model("echo", "1")


@dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None

    @classmethod
    def of(cls, message: Message) -> Self:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        return cls(topic, partition, offset, message.key(), message.value(), message.headers())


@dataclass(frozen=True)
class Reply:
    key: str
    value: bytes
    headers: Any
    partition: int = -1


Answer = Callable[[Record, Envelope, Content | RequestError], list[Reply]]


def echo(record: Record, envelope: Envelope, content: Content | RequestError) -> list[Reply]:
    """The rows come back; a row `{"fail": code}` gives that error."""
    code, message = None, ""
    if isinstance(content, RequestError):
        code, message = content.code, content.message
    elif isinstance(content.inputs[0], dict) and "fail" in content.inputs[0]:
        code, message = Code(content.inputs[0]["fail"]), "as you wish"
    if code is not None:
        value = error_body(envelope, code, message)
    else:
        assert isinstance(content, Content)
        value = result_body(envelope, ECHO, list(content.inputs), {"batch_size": 1})
    return [Reply(envelope.id, value, reply_headers(envelope, record, ECHO, code))]


def three_times(record: Record, envelope: Envelope, content: Content | RequestError) -> list[Reply]:
    """The echo, and twice more another answer to the same request."""
    first = echo(record, envelope, content)
    again = Reply(envelope.id, result_body(envelope, ECHO, ["again"], {}), first[0].headers)
    return [*first, again, again]


class Responder:
    """Answers every request of a topic from its beginning, on a thread of its own; `asked` are the records it saw."""

    def __init__(self, bootstrap_servers: str, requests: str, answer: Answer) -> None:
        self.asked: list[Record] = []
        self._answer = answer
        kafka = {"bootstrap.servers": bootstrap_servers}
        self._consumer: Any = Consumer({**kafka, "group.id": "unused", "enable.auto.commit": False})
        self._producer: Any = Producer({**kafka, "linger.ms": 0})
        partitions = self._consumer.list_topics(requests, timeout=30).topics[requests].partitions
        self._consumer.assign([TopicPartition(requests, partition, OFFSET_BEGINNING) for partition in partitions])
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            for message in self._consumer.consume(100, 0.02):
                assert message.error() is None, message.error()
                record = Record.of(message)
                self.asked.append(record)
                envelope, content = read_request(record)
                for reply in self._answer(record, envelope, content):
                    assert envelope.reply_topic is not None
                    self._producer.produce(
                        envelope.reply_topic, reply.value, reply.key, headers=reply.headers, partition=reply.partition
                    )
            self._producer.poll(0)
        assert self._producer.flush(30) == 0
        self._consumer.close()


@dataclass(frozen=True)
class Place:
    """Fresh topics of one test, and clients and answers for them."""

    bootstrap_servers: str
    requests: str
    replies: str

    def client(self, **fields: Any) -> Client:
        kafka = {"bootstrap.servers": self.bootstrap_servers, **fields.pop("kafka", {})}
        topics = {"requests": self.requests, "replies": self.replies}
        return Client(kafka=kafka, **{**topics, "timeout_s": WITHIN_S, **fields})

    def answering(self, answer: Answer = echo) -> Responder:
        return Responder(self.bootstrap_servers, self.requests, answer)


@pytest.fixture
def place(broker: Broker, topics: Topics) -> Place:
    requests, replies = topics.create("requests", partitions=4), topics.create("replies", partitions=3)
    return Place(broker.bootstrap_servers, requests, replies)


@pytest.fixture
def one_partition(broker: Broker, topics: Topics) -> Place:
    """Where replies are read in the order in which they were written."""
    requests, replies = topics.create("requests", partitions=1), topics.create("replies", partitions=1)
    return Place(broker.bootstrap_servers, requests, replies)


# ---- each its own answer


def test_001_3_two_clients_on_one_reply_topic_each_get_their_own_answers(place: Place) -> None:
    with place.answering() as answers, place.client() as one, place.client() as other:
        futures = {
            f"{name} {number}": client.submit(f"{name} {number}")
            for number in range(500)
            for name, client in (("one", one), ("other", other))
        }
        for text, future in futures.items():
            assert future.result().outputs == [text]
        assert len({future.result().id for future in futures.values()}) == 1000
        assert (one.unanswered, other.unanswered) == (0, 0)
    assert len(answers.asked) == 1000


def test_001_3_a_real_worker_answers_two_clients(pipeline: Pipeline, tmp_path: Path) -> None:
    place = Place(pipeline.bootstrap_servers, pipeline.requests, pipeline.replies)
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        worker.wait_serving()
        with place.client() as one, place.client() as other:
            futures = [
                (client.submit(text), text) for client, texts in ((one, "abc"), (other, "xyz")) for text in texts
            ]
            for future, text in futures:
                assert future.result().outputs == [{"text": text, "digest": digest(text)}]
            with pytest.raises(RequestFailed, match="no thanks") as raised:
                one.request({"inputs": [{"refuse": "no thanks"}]})
            assert raised.value.code is Code.INVALID_REQUEST


def test_004_4_the_reply_carries_the_id_that_the_client_chose_as_its_key(place: Place) -> None:
    with place.answering() as answers, place.client() as client:
        assert client.request("hello", request_id="my-own-id", key="my-own-key").id == "my-own-id"
        assert client.request({"id": "in-the-body", "inputs": ["hello"]}).id == "in-the-body"
    reader = Reader(place.bootstrap_servers, place.replies)
    reader.read_to_end()
    reader.close()
    assert reader.ids().keys() == {"my-own-id", "in-the-body"}
    assert {record.key for record in answers.asked} == {b"my-own-key", None}


def test_two_requests_with_the_same_id_each_get_their_own_answer(place: Place) -> None:
    with place.answering(), place.client() as one, place.client() as other:
        futures = [(client.submit(text, request_id="same"), text) for client in (one, other) for text in ("a", "b")]
        assert [future.result().outputs for future, _ in futures] == [[text] for _, text in futures]


def test_an_answer_that_comes_three_times_counts_once(one_partition: Place) -> None:
    called: list[Future[Result]] = []
    with one_partition.answering(three_times), one_partition.client() as client:
        first = client.submit("first")
        first.add_done_callback(called.append)
        # Its answer is written behind all three of the first one, and there is one partition.
        assert client.request("second").outputs == ["second"]
        assert first.result(0).outputs == ["first"]
        assert called == [first]


def test_an_answer_that_comes_while_no_broker_tells_of_the_topic_arrives(
    one_partition: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        """A consumer whose broker tells nothing of topics; in that time the answer comes, and no sooner."""

        def __init__(self, consumer: Any) -> None:
            self._consumer = consumer
            self._came = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._consumer, name)

        def list_topics(self, *_: Any, **__: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

        def poll(self, timeout_s: float) -> Any:
            if timeout_s or self._came:
                return None
            self._came = True
            return self._consumer.poll(WITHIN_S)

    with one_partition.answering(), one_partition.client() as client:
        monkeypatch.setattr("forebay_producer.client.NEW_PARTITIONS_EVERY_S", 0.0)
        monkeypatch.setattr(client, "_consumer", Slow(client._consumer))
        assert client.request("right").outputs == ["right"]


def test_what_strangers_write_to_the_reply_topic_is_passed_over(one_partition: Place) -> None:
    def among_noise(record: Record, envelope: Envelope, content: Content | RequestError) -> list[Reply]:
        strange = [("correlation-id", b"stranger")]
        noise = [
            Reply("", b"", None),
            Reply(envelope.id, b"{broken", strange),
            Reply(envelope.id, b'{"outputs": ["wrong"]}', [("correlation-id", None)]),
            Reply(envelope.id, result_body(envelope, ECHO, ["wrong"], {}), strange),
        ]
        return noise + echo(record, envelope, content)

    with one_partition.answering(among_noise), one_partition.client() as client:
        assert client.request("right").outputs == ["right"]


@pytest.mark.skipif(bundled_library() is None, reason="needs the librdkafka that comes inside the wheel")
def test_row_20_a_strangers_header_name_that_is_not_utf8_costs_nobody_an_answer(
    one_partition: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with one_partition.client() as client:
        early = [client.submit(f"{number}") for number in range(500)]  # so many that Python has specialised its loops
        with one_partition.answering():
            wait(early)
        late = [client.submit(f"{number}") for number in range(20)]
        produce_raw(
            one_partition.bootstrap_servers, one_partition.replies, 0, b"", key=b"strange", headers=[(b"\xff", b"1")]
        )
        with one_partition.answering():
            assert [future.result().outputs for future in late] == [[f"{number}"] for number in range(20)]
        assert all(future.result().outputs == [f"{number}"] for number, future in enumerate(early))
    assert not [said for said in caplog.records if said.name == "forebay_producer"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param(b"{broken", "not a reply", id="no JSON"),
        pytest.param(b'{"id": "a", "error": {"message": %b%b}}' % (b"[" * 1000, b"]" * 1000), "internal", id="deep"),
    ],
)
def test_an_answer_of_ours_that_cannot_be_read_is_told(value: bytes, told: str, place: Place) -> None:
    def broken(record: Record, envelope: Envelope, content: Content | RequestError) -> list[Reply]:
        return [Reply(envelope.id, value, reply_headers(envelope, record, ECHO, None))]

    with place.answering(broken), place.client() as client:
        for _ in range(2):  # the thread that reads answers goes on
            with pytest.raises(RequestFailed, match=told) as raised:
                client.request("hello")
            assert raised.value.code is Code.INTERNAL


def test_answers_on_a_partition_that_was_added_later_arrive(place: Place) -> None:
    def on_the_new_one(record: Record, envelope: Envelope, content: Content | RequestError) -> list[Reply]:
        return [Reply(reply.key, reply.value, reply.headers, 3) for reply in echo(record, envelope, content)]

    with place.client() as client:
        admin: Any = AdminClient({"bootstrap.servers": place.bootstrap_servers})
        for added in admin.create_partitions([NewPartitions(place.replies, 4)]).values():
            added.result(30)
        wait_until(lambda: len(admin.list_topics(place.replies, timeout=30).topics[place.replies].partitions) == 4,
                   "the fourth partition")  # fmt: skip
        with place.answering(on_the_new_one):
            assert client.request("hello").outputs == ["hello"]


# ---- errors, each by its type


@pytest.mark.parametrize("code", list(Code))
def test_an_error_reply_raises_with_its_code(code: Code, place: Place) -> None:
    with place.answering(), place.client() as client:
        with pytest.raises(RequestFailed, match="as you wish") as raised:
            client.request([{"fail": code}], request_id="mine")
        assert (raised.value.code, raised.value.message) == (code, "as you wish")
        assert raised.value.failure.id == raised.value.request_id == "mine"


def test_004_7_nobody_waits_for_ever_and_the_error_has_a_type(place: Place) -> None:
    with place.client(timeout_s=0.3) as client:
        with pytest.raises(ReplyTimeout, match=rf"no answer within 0\.3 s(.*list {place.replies!r}|; the broker)"):
            client.request("anybody there?")
        assert isinstance(client.submit("and now?").exception(WITHIN_S), TimeoutError)
        assert client.unanswered == 0


def test_an_answer_that_comes_too_late_harms_nobody(one_partition: Place) -> None:
    with one_partition.client() as client:
        with pytest.raises(ReplyTimeout):
            client.request("too late", timeout_s=0.2)
        with one_partition.answering():
            assert client.request("in time").outputs == ["in time"]


def test_a_cancelled_request_is_forgotten(one_partition: Place) -> None:
    with one_partition.client() as client:
        futures = [client.submit(text) for text in ("cancelled", "kept")]
        assert futures[0].cancel()
        assert client.unanswered == 1
        with one_partition.answering():
            assert wait(futures, timeout=WITHIN_S).not_done == set()
        assert futures[1].result().outputs == ["kept"]


def test_what_the_broker_refuses_is_not_delivered(broker: Broker, topics: Topics) -> None:
    small = topics.create("small", partitions=1, config={"max.message.bytes": "2000"})
    place = Place(broker.bootstrap_servers, small, topics.create("replies", partitions=1))
    with place.client() as client, place.answering():
        with pytest.raises(NotDelivered, match="too large") as raised:
            client.request("x" * 10_000, request_id="mine")
        assert raised.value.request_id == "mine"
        with pytest.raises(NotDelivered, match="too large"):
            client.submit("x" * 2_000_000)  # more than the client itself takes
        assert client.unanswered == 0
        assert client.request("small").outputs == ["small"]


def test_a_full_client_says_so_and_goes_on_when_there_is_room(place: Place) -> None:
    with place.client(max_in_flight=2) as client:
        futures = [client.submit(text) for text in "ab"]
        with pytest.raises(ClientQueueFull, match="max_in_flight"):
            client.submit("c", timeout_s=0.1)
        with place.answering(), ThreadPoolExecutor(8) as pool:
            assert [future.result().outputs for future in futures] == [["a"], ["b"]]
            texts = [str(number) for number in range(100)]
            assert [result.outputs for result in pool.map(client.request, texts)] == [[text] for text in texts]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({"timeout_s": 0}, "timeout_s=0", id="no timeout"),
        pytest.param({"timeout_s": float("inf")}, "timeout_s=inf", id="for ever"),
        pytest.param({"deadline_s": float("nan")}, "deadline_s=nan", id="no time"),
        pytest.param({"key": "\ud800"}, "key or headers", id="half a surrogate pair in the key"),
        pytest.param({"headers": {"x": object()}}, "headers: 'x'", id="a header of no known type"),
        pytest.param({"headers": {"x\ud800": "a"}}, "headers: name", id="a name that ends librdkafka"),
        pytest.param({"timeout_s": "5"}, "timeout_s='5'", id="a text for a time"),
        pytest.param({"deadline_s": 1.8e12}, "deadline_s=.* in seconds", id="a deadline in milliseconds"),
        pytest.param({"deadline_s": "soon"}, "deadline_s='soon'", id="a text for a deadline"),
    ],
)
def test_an_option_that_cannot_be_sent_is_told_and_leaves_nothing_behind(
    options: dict[str, Any], told: str, place: Place
) -> None:
    with place.client() as client:
        with pytest.raises(BadRequest, match=told):
            client.submit("hello", **options)
        assert client.unanswered == 0


# ---- what travels


def test_all_options_reach_the_worker(place: Place) -> None:
    envelopes = []

    def noting(record: Record, envelope: Envelope, content: Content | RequestError) -> list[Reply]:
        envelopes.append((record, envelope, content))
        return echo(record, envelope, content)

    with place.answering(noting), place.client() as client:
        client.request(
            "hello", request_id="mine", key=b"key", model="sentiment", parameters={"top_k": 2}, deadline_s=4e9,
            headers={"traceparent": "00-1-2-01", "priority": b"3", "request-id": "not this one"},
        )  # fmt: skip
    [(record, envelope, content)] = envelopes
    assert record.key == b"key"
    assert (envelope.id, envelope.model, envelope.deadline_s) == ("mine", "sentiment", 4e9)
    assert (envelope.traceparent, envelope.priority, envelope.reply_topic) == (b"00-1-2-01", 3, place.replies)
    assert isinstance(content, Content)
    assert (list(content.inputs), content.parameters) == (["hello"], {"top_k": 2})


# ---- lifetime and threads


def test_004_2_sending_needs_no_worker(place: Place) -> None:
    with place.client() as client:
        futures = [client.submit(str(number)) for number in range(300)]
        reader = Reader(place.bootstrap_servers, place.requests)
        wait_until(lambda: reader.read() or len(reader.messages) == 300, "300 requests in the topic")
        reader.read_to_end()
        reader.close()
        assert client.unanswered == len(reader.messages) == 300
        with place.answering():
            assert [future.result().outputs for future in futures] == [[str(number)] for number in range(300)]


def test_closing_ends_what_still_waits(place: Place) -> None:
    client = place.client()
    with pytest.raises(ClientClosed, match="not open"):
        client.submit("too early")
    client.open()
    client.open()  # no effect
    future = client.submit("never answered")
    client.close()
    client.close()  # no effect
    with pytest.raises(ClientClosed):
        future.result(0)
    with pytest.raises(ClientClosed):
        client.submit("too late")
    with pytest.raises(ClientClosed):
        client.open()


def test_closing_sends_what_is_queued_first(place: Place) -> None:
    with place.client(kafka={"linger.ms": 5000}) as client:
        for number in range(50):
            client.submit(str(number))
    reader = Reader(place.bootstrap_servers, place.requests)
    reader.read_to_end()
    reader.close()
    assert len(reader.messages) == 50


def test_a_setting_for_one_of_the_two_kafka_clients_makes_no_noise(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with place.answering(), place.client(kafka={"compression.type": "lz4", "fetch.min.bytes": 1}) as client:
        assert client.request("hello").outputs == ["hello"]
    assert caplog.messages == []


def test_no_thread_outlives_its_client(place: Place) -> None:
    before = set(threading.enumerate())
    with place.client():
        assert {thread.name for thread in set(threading.enumerate()) - before} == {
            "forebay-replies",
            "forebay-producer",
        }
    assert set(threading.enumerate()) <= before


def test_a_closed_client_keeps_no_thread_of_librdkafkas_either(place: Place) -> None:
    process = psutil.Process()
    with place.answering() as _:
        before = process.num_threads()
        client = place.client()
        with client:
            assert client.request("hello").outputs == ["hello"]
            assert process.num_threads() > before + 2
        wait_until(lambda: process.num_threads() <= before, "they end, though the client is still at hand")


def test_a_text_with_parameters_is_no_body_whose_id_would_count(place: Place) -> None:
    with place.answering(), place.client() as client:
        result = client.request('{"id": "order-7"}', parameters={"top_k": 3})
    assert result.outputs == ['{"id": "order-7"}']
    assert len(result.id) == 32, "one of the client's own"


def test_a_signals_handler_may_close_a_client_while_it_is_opened(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    client = place.client()
    follow = Client._follow_partitions

    def interrupted(self: Client, *arguments: Any, **options: Any) -> None:
        follow(self, *arguments, **options)
        self.close()  # as a handler does, on the same thread

    monkeypatch.setattr(Client, "_follow_partitions", interrupted)
    with pytest.raises(ClientClosed, match="while it was opened"):
        client.open()


def test_many_may_open_one_client_at_once(place: Place) -> None:
    client = place.client()
    with place.answering(), ThreadPoolExecutor(8) as pool:
        ready = threading.Barrier(8)

        def ask(number: int) -> Any:
            ready.wait()
            client.open()
            return client.request(f"text {number}").outputs

        assert [*pool.map(ask, range(8))] == [[f"text {number}"] for number in range(8)]
        client.close()


FORKS = """
import os, sys, traceback
from forebay_producer import Client, ClientClosed

servers, requests, replies = sys.argv[1:]
client = Client(kafka={"bootstrap.servers": servers}, requests=requests, replies=replies, timeout_s=60)
children = []

def fork(work):
    if child := os.fork():
        children.append(child)
        return
    try:
        work()
        client.close()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)

def ask(name):
    client.open()
    for number in range(50):
        assert client.request(f"{name} {number}").outputs == [f"{name} {number}"]

def be_refused():
    for refused in (client.open, lambda: client.submit("of the child's")):
        try:
            refused()
        except ClientClosed as error:
            assert "in another process" in str(error), error
        else:
            raise AssertionError("it was not refused")

fork(lambda: ask("one"))
fork(lambda: ask("two"))
client.open()
fork(be_refused)
assert client.request("of the parent's").outputs == ["of the parent's"]
assert not any(os.waitpid(child, 0)[1] for child in children)
client.close()
"""


def test_processes_that_were_forked_each_get_their_own_answers_or_are_told(place: Place) -> None:
    with place.answering():
        command = [sys.executable, "-c", FORKS, place.bootstrap_servers, place.requests, place.replies]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_callbacks_may_ask_again_raise_and_close(place: Place) -> None:
    chained: Future[Result] = Future()
    closed: Future[None] = Future()

    def ask_again(done: Future[Result]) -> None:
        client.submit("second").add_done_callback(lambda second: chained.set_result(second.result()))
        with pytest.raises(RuntimeError, match=r"use submit\(\)"):
            client.request("would wait for itself")
        raise SystemExit(f"{done} must not end the client's thread")

    def close(_: Future[Result]) -> None:
        client.close()
        closed.set_result(None)

    with place.answering(), place.client() as client:
        client.submit("first").add_done_callback(ask_again)
        assert chained.result(WITHIN_S).outputs == ["second"]
        client.submit("third").add_done_callback(close)
        closed.result(WITHIN_S)
        with pytest.raises(ClientClosed):
            client.submit("fourth")


@pytest.mark.parametrize("missing", ["requests", "replies"])
def test_a_missing_topic_is_named(missing: str, place: Place) -> None:
    with pytest.raises(BrokerUnavailable, match=r"not-there.*create it first"):
        place.client(**{missing: "not-there"}).open()


def test_a_broker_that_is_not_there_is_told_with_its_address_and_why() -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 .*refused.*bootstrap\.servers"):
        Client(kafka={"bootstrap.servers": "127.0.0.1:1"}).open()


# ---- bulk


def test_a_bulk_answers_every_request_though_some_fail(place: Place) -> None:
    requests = [
        Request(
            [{"fail": "expired"}] if number % 10 == 0 else b"no image" if number % 10 == 1 else str(number), str(number)
        )
        for number in range(300)
    ]
    expected = {0: RequestFailed, 1: BadRequest}
    with place.answering(), place.client() as client:
        outcomes = {request.source: outcome for request, outcome in submit_all(client, requests, in_flight=50)}
    assert outcomes.keys() == {request.source for request in requests}
    for source, outcome in outcomes.items():
        assert isinstance(outcome, expected.get(int(source) % 10, Result))
        assert not isinstance(outcome, Result) or outcome.outputs == [source]
