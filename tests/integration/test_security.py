"""Who may in, with which rights, and what is told to those who may not: worker and client on a broker that asks."""

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka.admin import AclOperation

from forebay_local.topics import create_topics
from forebay_producer import BrokerUnavailable, Client, NotDelivered, ReplyTimeout
from forebay_schemas import Failure, Result
from support.broker import Topics
from support.pipeline import Pipeline
from support.promise import numbered
from support.queue import set_group
from support.secure_broker import (
    DESCRIBE,
    GROUP,
    PASSWORD,
    READ,
    TOPIC,
    TRANSACTIONAL_ID,
    WRITE,
    Grant,
    SecureBroker,
    running_secure_broker,
)
from support.tokens import TokenEndpoint
from support.worker import WorkerProcess, wait_until

SECRET: Final = "hunter2-hunter2"
MECHANISM: Final = "SCRAM-SHA-512"
BAD: Final = '{"inputs": [{"raise": true}]}'


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with running_secure_broker(tmp_path_factory.mktemp("certificates")) as broker:
        yield broker


@dataclass
class Site:
    """Fresh topics, and two fresh users that may do nothing yet."""

    secure: SecureBroker
    pipeline: Pipeline
    worker: str = field(default_factory=lambda: f"worker-{uuid.uuid4().hex[:8]}")
    client: str = field(default_factory=lambda: f"client-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        for user in (self.worker, self.client):
            self.secure.add_scram_user(user)

    # docs/security.md tells users that exactly these are needed.

    @property
    def workers_grants(self) -> dict[str, Grant]:
        return {
            "requests": (TOPIC, self.pipeline.requests, READ),
            "group": (GROUP, self.pipeline.group, READ),
            "replies": (TOPIC, self.pipeline.replies, WRITE),
            "dead letters": (TOPIC, self.pipeline.dead_letters, WRITE),
        }

    @property
    def clients_grants(self) -> dict[str, Grant]:
        return {
            "requests": (TOPIC, self.pipeline.requests, WRITE),
            "replies": (TOPIC, self.pipeline.replies, READ),
        }

    def grant_all(self, worker: str | None = None) -> None:
        self.secure.grant(worker or self.worker, list(self.workers_grants.values()))
        self.secure.grant(self.client, list(self.clients_grants.values()))

    def make_client(self, **kafka: Any) -> Client:
        given = {**self.secure.sasl(self.client, mechanism=MECHANISM), **kafka}
        return Client(kafka=given, requests=self.pipeline.requests, replies=self.pipeline.replies, timeout_s=20)

    def settings(self, kafka: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
        return self.pipeline.settings(kafka=kafka or self.secure.sasl(self.worker, mechanism=MECHANISM), **parts)

    def ask_for_a_result_and_an_error(self) -> None:
        self.pipeline.send_all([("good", "text"), ("bad", BAD)], partition=0)

    def committed_nothing(self) -> bool:
        """Where to begin may be: the end of nothing answered."""
        return all(offset <= 0 for offset in self.pipeline.committed().values())


@pytest.fixture
def site(secure: SecureBroker) -> Iterator[Site]:
    topics = Topics(secure.bootstrap_servers)
    yield Site(secure, Pipeline(secure.bootstrap_servers, topics))
    topics.delete()


def refusals(lines: Iterable[object]) -> list[str]:
    """Lines of a log that tell of a right that is missing; a broker that has just started makes others."""
    return [str(line) for line in lines if "authorization" in str(line).lower()]


# ---- least privilege


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_documented_acls_are_enough_for_worker_and_client(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    site.grant_all()
    kafka = {**site.secure.sasl(site.worker, mechanism=MECHANISM), "group.protocol": protocol}
    with WorkerProcess(tmp_path, site.settings(kafka)) as worker, site.make_client() as client:
        futures = [client.submit(f"text {number}") for number in range(50)]
        bad = client.submit({"inputs": [{"raise": True}]})
        assert [future.result().outputs[0]["text"] for future in futures] == [f"text {n}" for n in range(50)]
        error = bad.exception()
        assert worker.stop() == 0
    assert "model_error" in str(error)
    letters = site.pipeline.reader(site.pipeline.dead_letters)
    letters.read_to_end()
    assert len(letters.messages) == 1
    assert {p: offset for p, offset in site.pipeline.committed().items() if offset > 0} == {
        p: end for p, end in site.pipeline.ends().items() if end > 0
    }
    assert refusals([*worker.lines(), *caplog.messages]) == []


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        pytest.param("requests", "grant Read on the request topics", id="no Read on the requests"),
        pytest.param("group", "grant Read on the group", id="no Read on the group"),
        pytest.param("replies", "grant Write on it", id="no Write on the replies"),
        pytest.param("dead letters", "grant Write on it", id="no Write on the dead letters"),
    ],
)
def test_row_23_without_one_acl_the_worker_ends_naming_it_and_commits_nothing(
    site: Site, tmp_path: Path, protocol: str, missing: str, remedy: str
) -> None:
    grants = site.workers_grants
    _, name, _ = grants.pop(missing)
    site.secure.grant(site.worker, list(grants.values()))
    site.pipeline.send_all([("bad", BAD)], partition=0)
    kafka = {**site.secure.sasl(site.worker, mechanism=MECHANISM), "group.protocol": protocol}
    with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
        assert worker.process.wait(60) == 1
    (told,) = worker.lines("worker_failed")
    assert remedy in told["error"]
    assert name in told["error"]
    assert site.committed_nothing()


@pytest.mark.parametrize("seen", [True, False], ids=["that it may describe", "that it may not see"])
def test_without_write_on_any_topic_the_worker_ends_too(site: Site, tmp_path: Path, seen: bool) -> None:
    """There the idempotent producer gets no id, which librdkafka holds to be the producer's end."""
    described = [(TOPIC, topic, DESCRIBE) for topic in (site.pipeline.replies, site.pipeline.dead_letters)]
    grants = site.workers_grants
    site.secure.grant(site.worker, [grants["requests"], grants["group"], *(described if seen else [])])
    site.ask_for_a_result_and_an_error()
    with WorkerProcess(tmp_path, site.settings()) as worker:
        assert worker.process.wait(60) == 1
    assert "grant " in worker.lines("worker_failed")[0]["error"]
    assert site.committed_nothing()


@pytest.mark.parametrize("missing", ["requests", "group", "replies"])
def test_a_right_that_is_taken_away_later_ends_the_worker(site: Site, tmp_path: Path, missing: str) -> None:
    site.grant_all()
    with WorkerProcess(tmp_path, site.settings()) as worker:
        site.ask_for_a_result_and_an_error()
        site.pipeline.reader().wait_for(2)
        site.secure.revoke(site.worker, site.workers_grants[missing])
        site.pipeline.send_all([("late", "text")], partition=1)
        assert worker.process.wait(60) == 1
    assert "grant " in worker.lines("worker_failed")[0]["error"]
    assert site.pipeline.committed()[1] <= 0


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        pytest.param(None, "", id="all there"),
        pytest.param("transactional id", "grant Write on the transactional id", id="no Write on the transactional id"),
        pytest.param("requests", "grant Read on the request topics", id="no Read on the requests"),
        pytest.param("group", "grant Read on the group", id="no Read on the group"),
        pytest.param("replies", "grant Write on it", id="no Write on the replies"),
        pytest.param("dead letters", "grant Write on it", id="no Write on the dead letters"),
    ],
)
def test_row_23_exactly_once_needs_one_right_more(site: Site, tmp_path: Path, missing: str | None, remedy: str) -> None:
    own = f"{site.pipeline.group}-0"
    grants = {**site.workers_grants, "transactional id": (TRANSACTIONAL_ID, own, WRITE)}
    if missing is not None:
        grants.pop(missing)
    site.secure.grant(site.worker, list(grants.values()))
    site.ask_for_a_result_and_an_error()
    settings = site.settings(delivery={"mode": "exactly-once", "transactional_id": own})
    with WorkerProcess(tmp_path, settings) as worker:
        if missing is None:
            site.pipeline.reader().wait_for(2)
            assert worker.stop() == 0
            assert refusals(worker.lines()) == []
        else:
            assert worker.process.wait(60) == 1
            assert remedy in worker.lines("worker_failed")[0]["error"]
            assert site.committed_nothing()


@pytest.mark.parametrize("mode", ["at-least-once", "exactly-once"])
def test_row_21_a_reply_topic_that_may_be_seen_and_not_written_is_its_clients_concern_only(
    site: Site, tmp_path: Path, mode: str
) -> None:
    own = f"own-{uuid.uuid4().hex[:12]}"
    create_topics(site.secure.bootstrap_servers, {own: 1})
    anyone = (TRANSACTIONAL_ID, f"{site.pipeline.group}-0", WRITE)
    site.secure.grant(site.worker, [*site.workers_grants.values(), (TOPIC, own, DESCRIBE), anyone])
    delivery = {"mode": mode, "transactional_id": anyone[1]} if mode == "exactly-once" else {"mode": mode}
    topics = {"replies": [site.pipeline.replies, "^own-.*"]}
    site.pipeline.send("astray", id="astray", headers={"reply-topic": own}, partition=0)
    texts = numbered(20)
    site.pipeline.send_all(texts.items())
    with WorkerProcess(tmp_path, site.settings(topics=topics, delivery=delivery)) as worker:
        reader = site.pipeline.reader()
        reader.wait_for(len(texts) + 1)
        wait_until(lambda: site.pipeline.committed() == site.pipeline.ends(), "nothing is held up", 60)
        assert worker.stop() == 0
    assert set(reader.ids()) == {*texts, "astray"}
    errors = [reply.message for reply in reader.replies() if isinstance(reply, Failure)]
    assert errors == [
        f"header reply-topic: {own!r} may not be written to by this worker; leave it out for {site.pipeline.replies!r}"
    ]


# ---- who it is


def _queue(site: Site, grants: Iterable[AclOperation]) -> dict[str, Any]:
    """Settings of a queue, whose worker has these rights on the group's settings beside all others."""
    site.grant_all()
    for operation in grants:
        site.secure.grant(site.worker, [(GROUP, site.pipeline.group, operation)])
    return site.settings(delivery={"mode": "queue"})


def test_the_documented_acls_are_enough_for_a_queue(site: Site, tmp_path: Path) -> None:
    settings = _queue(site, [AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS])
    with WorkerProcess(tmp_path, settings) as worker:
        site.ask_for_a_result_and_an_error()
        reader = site.pipeline.reader()
        reader.wait_for(2)
        reader.close()
        assert worker.stop() == 0
    assert refusals(worker.lines()) == []


@pytest.mark.parametrize("granted", [[], [AclOperation.DESCRIBE_CONFIGS]], ids=["cannot look", "cannot set"])
def test_without_a_right_on_the_groups_settings_a_queue_ends_and_names_it(
    site: Site, tmp_path: Path, granted: list[AclOperation]
) -> None:
    with WorkerProcess(tmp_path, _queue(site, granted)) as worker:
        wait_until(lambda: worker.process.poll() is not None, "it ends")
        (line,) = worker.lines("worker_failed")
    assert worker.process.returncode == 1
    if not granted:
        assert f"grant DescribeConfigs on the group {site.pipeline.group}" in line["error"]
    else:
        assert f"grant AlterConfigs on the group {site.pipeline.group}" in line["error"]
        assert f"--entity-name {site.pipeline.group} --add-config share.auto.offset.reset=earliest," in line["error"]


def test_a_queue_that_an_operator_has_set_up_needs_no_right_to_set(site: Site, tmp_path: Path) -> None:
    settings = _queue(site, [AclOperation.DESCRIBE_CONFIGS])
    chosen = {"auto.offset.reset": "earliest", "isolation.level": "read_committed"}
    chosen |= {"record.lock.duration.ms": "30000", "delivery.count.limit": "5"}
    servers = site.secure.bootstrap_servers
    set_group(servers, site.pipeline.group, {f"share.{key}": value for key, value in chosen.items()})
    with WorkerProcess(tmp_path, settings) as worker:
        site.ask_for_a_result_and_an_error()
        reader = site.pipeline.reader()
        reader.wait_for(2)
        reader.close()
        assert worker.stop() == 0


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_row_23_a_wrong_password_ends_the_worker_and_names_the_settings(site: Site, tmp_path: Path, start: str) -> None:
    site.grant_all()
    site.ask_for_a_result_and_an_error()
    settings = site.settings(site.secure.sasl(site.worker, "wrong", MECHANISM), delivery={"start": start})
    with WorkerProcess(tmp_path, settings) as worker:
        assert worker.process.wait(60) == 1
    assert "check sasl.*" in worker.lines("worker_failed")[0]["error"]
    assert site.committed_nothing()


def test_an_authority_that_did_not_sign_ends_the_worker_and_names_the_settings(site: Site, tmp_path: Path) -> None:
    kafka = {**site.secure.sasl_tls(site.worker), "ssl.ca.location": str(site.secure.certificates.stranger)}
    with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
        assert worker.process.wait(60) == 1
    told = worker.lines("worker_failed")[0]["error"]
    assert "certificate verify failed" in told
    assert "check ssl.*" in told


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "SASL over TLS", "mutual TLS"])
def test_a_worker_gets_in_by(site: Site, tmp_path: Path, way: str) -> None:
    kafka = {
        "SASL over TLS": site.secure.sasl_tls(site.worker),
        "mutual TLS": site.secure.mutual_tls(),
    }.get(way) or site.secure.sasl("worker" if way == "PLAIN" else site.worker, mechanism=way)
    site.grant_all("worker" if way in ("PLAIN", "mutual TLS") else site.worker)
    site.ask_for_a_result_and_an_error()
    with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
        replies = site.pipeline.reader().wait_for(2)
        assert worker.stop() == 0
    assert {reply.id: type(reply) for reply in replies} == {"good": Result, "bad": Failure}


def test_worker_and_client_read_their_secrets_from_files(site: Site, tmp_path: Path) -> None:
    site.grant_all("worker")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    by_file = {"sasl.password.file": str(tmp_path / "password")}
    client = {**site.secure.sasl(site.client, mechanism=MECHANISM), **by_file}
    del client["sasl.password"]
    tls = site.secure.mutual_tls()
    key = {"ssl.key.pem.file": tls.pop("ssl.key.location")}
    with (
        WorkerProcess(tmp_path, site.settings({**tls, **key})) as worker,
        Client(kafka=client, requests=site.pipeline.requests, replies=site.pipeline.replies) as asking,
    ):
        assert asking.request("text").outputs[0]["text"] == "text"
        assert worker.stop() == 0


def test_a_secret_file_that_is_missing_is_told_before_anything_starts(site: Site, tmp_path: Path) -> None:
    kafka = {**site.secure.sasl(site.worker, mechanism=MECHANISM), "sasl.password.file": str(tmp_path / "none")}
    del kafka["sasl.password"]
    with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
        assert worker.process.wait(60) == 2
    assert f"kafka.sasl.password.file='{tmp_path / 'none'}': cannot be read: No such file" in worker.log.read_text()
    assert worker.loads() == []


# ---- OAuth


def test_tokens_come_from_a_function_of_the_users(site: Site, tmp_path: Path) -> None:
    site.grant_all()
    kafka = {**site.secure.oauth(), "oauth_cb": "support.tokens:fetch"}
    with (
        WorkerProcess(tmp_path, site.settings({**kafka, "sasl.oauthbearer.config": site.worker})) as worker,
        site.make_client(**kafka, **{"sasl.oauthbearer.config": site.client}) as client,
    ):
        assert client.request("text").outputs[0]["text"] == "text"
        assert worker.stop() == 0


def test_tokens_come_from_an_endpoint(site: Site, tmp_path: Path) -> None:
    site.grant_all()
    with TokenEndpoint("s3cret") as endpoint:
        worker_kafka = {**site.secure.oauth(), **endpoint.settings(site.worker, "s3cret")}
        client_kafka = {**site.secure.oauth(), **endpoint.settings(site.client, "s3cret")}
        with (
            WorkerProcess(tmp_path, site.settings(worker_kafka)) as worker,
            site.make_client(**client_kafka) as client,
        ):
            assert client.request("text").outputs[0]["text"] == "text"
            assert worker.stop() == 0
        assert endpoint.asked >= 4, "a consumer and a producer on each side"


def test_a_function_that_gets_no_token_ends_the_worker_and_is_told(site: Site, tmp_path: Path) -> None:
    kafka = {**site.secure.oauth(), "oauth_cb": "support.tokens:refuse"}
    with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
        assert worker.process.wait(60) == 1
    (told, *_) = worker.lines("oauth_failed")
    assert (told["function"], told["error"]) == ("support.tokens:refuse", "OSError: the token server is away")
    assert "kafka.oauth_cb" in worker.lines("worker_failed")[0]["error"]


def test_an_endpoint_that_refuses_ends_the_worker_and_is_told(site: Site, tmp_path: Path) -> None:
    with TokenEndpoint("s3cret") as endpoint:
        kafka = {**site.secure.oauth(), **endpoint.settings(site.worker, "wrong-s3cret")}
        with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
            assert worker.process.wait(60) == 1
    told = worker.lines("worker_failed")[0]["error"]
    assert "OAUTHBEARER" in told
    assert "check sasl.*" in told
    assert "wrong-s3cret" not in worker.log.read_text()


def test_a_token_server_that_is_away_for_a_while_does_not_end_a_worker_that_has_joined(
    site: Site, tmp_path: Path
) -> None:
    """Longer than a token lives: librdkafka asks again 10 s later, and meanwhile nobody gets in."""
    site.grant_all()
    with TokenEndpoint("s3cret", lifetime_s=8) as endpoint:
        kafka = {**site.secure.oauth(), **endpoint.settings(site.worker, "s3cret")}
        with WorkerProcess(tmp_path, site.settings(kafka)) as worker:
            worker.wait_serving()
            endpoint.secret = "changed"
            wait_until(lambda: worker.lines("kafka_error"), "the consumer asked for its next token and got none")
            endpoint.secret = "s3cret"
            asked = endpoint.asked
            wait_until(lambda: endpoint.asked > asked + 1, "consumer and producer asked again")
            site.ask_for_a_result_and_an_error()
            site.pipeline.reader().wait_for(2)
            assert worker.stop() == 0


# ---- what the client is told


def test_a_client_with_a_wrong_password_is_told_to_check_it(site: Site) -> None:
    with pytest.raises(BrokerUnavailable, match=r"check sasl\.\* and ssl\.\*") as told:
        site.make_client(**{"sasl.password": "wrong-secret"}).open()
    assert "wrong-secret" not in str(told.value)


@pytest.mark.parametrize("missing", ["requests", "replies"])
def test_a_client_that_may_not_see_a_topic_is_told_what_to_grant(site: Site, missing: str) -> None:
    grants = site.clients_grants
    _, topic, _ = grants.pop(missing)
    site.secure.grant(site.client, list(grants.values()))
    with pytest.raises(BrokerUnavailable, match=f"{topic}.*grant {'Write' if missing == 'requests' else 'Read'} on it"):
        site.make_client().open()


def test_a_client_that_may_not_write_is_told_with_its_request(site: Site) -> None:
    grants = site.clients_grants
    site.secure.grant(site.client, [(TOPIC, site.pipeline.requests, DESCRIBE), grants["replies"]])
    with site.make_client() as client:
        for _ in range(2):
            with pytest.raises(NotDelivered, match="grant Write"):
                client.request("text")


def test_a_client_that_may_not_read_answers_is_told_so_when_none_comes(site: Site) -> None:
    grants = site.clients_grants
    site.secure.grant(site.client, [grants["requests"], (TOPIC, site.pipeline.replies, DESCRIBE)])
    with site.make_client() as client, pytest.raises(ReplyTimeout, match="grant Read on the reply topic"):
        client.request("text", timeout_s=5)


# ---- what the log says


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_log_holds_no_payload_and_no_secret(site: Site, tmp_path: Path, form: str) -> None:
    """At the most talkative, librdkafka included; an id is no payload, and is logged."""
    site.grant_all("worker")
    payload, header = f"payload-{uuid.uuid4().hex}", f"header-{uuid.uuid4().hex}"
    rows: dict[str, str | bytes] = {
        "good": payload,
        "not json": f"{{{payload}",
        "wrong shape": json.dumps({"inputs": payload}),
        "unknown parameter": json.dumps({"inputs": ["a"], "parameters": {payload: payload}}),
        "other model": json.dumps({"inputs": [payload], "model": payload}),
        "model raises": json.dumps({"inputs": [{"raise": payload}]}),
        "preprocess raises": json.dumps({"inputs": [{"stumble": payload}]}),
        "refused": json.dumps({"inputs": [{"refuse": payload}]}),
        "one output missing": json.dumps({"inputs": [{"length": payload}]}),
        "no utf-8": b"\xff" + payload.encode(),
        "too large": payload * 200,
    }
    for name, value in rows.items():
        site.pipeline.send(value, id=name, headers={"mine": header})
    site.pipeline.send(payload, id="other type", headers={"content-type": header})
    site.pipeline.send(payload, id="other topic", headers={"reply-topic": header})
    site.pipeline.flush()
    kafka = {**site.secure.sasl("worker"), "ssl.key.password": SECRET, "debug": "all"}
    parts = {
        "logging": {"level": "debug", "format": form},
        "limits": {"max_request_bytes": 4096},
        "model": {"options": {"token": SECRET}},
    }
    with WorkerProcess(tmp_path, site.settings(kafka, **parts)) as worker:
        site.pipeline.reader().wait_for(len(rows) + 2)
        assert worker.stop() == 0
    log = worker.log.read_text()
    for seen in ("model raises", "preprocess raises", "RuntimeError", "ValueError", "batch_done"):
        assert seen in log
    for private in (payload, header, PASSWORD, SECRET):
        assert private not in log


def test_the_end_of_a_worker_tells_no_secret(site: Site, tmp_path: Path) -> None:
    for name, kafka, code in (
        ("unknown", {"no.such.key": "x"}, 2),
        ("no-file", {"ssl.ca.location": "/no/such/file", "security.protocol": "SASL_SSL"}, 2),
        ("wrong", {}, 1),
    ):
        with WorkerProcess(tmp_path, site.settings({**site.secure.sasl("worker", SECRET), **kafka}), name) as worker:
            assert worker.process.wait(60) == code
        assert SECRET not in worker.log.read_text()
