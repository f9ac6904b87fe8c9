"""Where settings come from, which win, and which are refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from forebay_consumer.config import WorkerSettings
from forebay_producer import BadSettings, Client, ClientSettings, load


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("FOREBAY_")]:
        monkeypatch.delenv(name)


def test_004_7_there_is_a_timeout_without_asking_for_one() -> None:
    assert load().timeout_s == 30


def test_without_settings_the_usual_topics_on_this_machine() -> None:
    settings = load()
    assert (settings.requests, settings.replies) == ("inference.requests", "inference.replies")
    assert settings.kafka == {"bootstrap.servers": "localhost:9092"}


def test_arguments_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.yaml"
    file.write_text(
        "kafka:\n  bootstrap.servers: file:1\n  linger.ms: 7\n  security:\n    protocol: ssl\nreplies: from-file\n"
    )
    monkeypatch.setenv("FOREBAY_KAFKA__BOOTSTRAP_SERVERS", "env:1")
    monkeypatch.setenv("FOREBAY_KAFKA__CLIENT_ID", "env")
    monkeypatch.setenv("FOREBAY_REQUESTS", "from-env")
    from_env = load(file)
    assert from_env.kafka["bootstrap.servers"] == "env:1"
    assert (from_env.requests, from_env.replies) == ("from-env", "from-file")
    given = load(file, kafka={"bootstrap.servers": "given:1"}, replies="given")
    assert dict(given.kafka) == {
        "bootstrap.servers": "given:1", "client.id": "env", "linger.ms": 7, "security.protocol": "ssl",
    }  # fmt: skip
    assert (given.requests, given.replies) == ("from-env", "given")


def test_a_workers_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_BATCHING__LINGER_MS", "5")
    assert load().timeout_s == 30


@pytest.mark.parametrize(
    "kafka",
    [
        pytest.param({"acks": 1}, id="acks"),
        pytest.param({"request.required.acks": "0"}, id="acks by its other name"),
        pytest.param({"enable.idempotence": False}, id="idempotence off"),
        pytest.param({"enable_idempotence": "False"}, id="idempotence off, as from the environment"),
        pytest.param({"transactional.id": "x"}, id="transactions"),
        pytest.param({"group.id": "x"}, id="a group"),
        pytest.param({"enable.auto.commit": True}, id="commits"),
        pytest.param({"auto.offset.reset": "latest"}, id="answers jumped over"),
        pytest.param({"isolation.level": "read_uncommitted"}, id="answers taken back"),
        pytest.param({"delivery.timeout.ms": 0}, id="no delivery timeout"),
        pytest.param({"message.timeout.ms": "0"}, id="no delivery timeout by its other name"),
    ],
)
def test_what_would_break_a_promise_is_refused_by_name(kafka: dict[str, Any]) -> None:
    key = next(iter(kafka)).replace("_", ".")
    with pytest.raises(BadSettings, match=f"{key}=.*allowed|{key}=.*may not"):
        Client(kafka=kafka)


@pytest.mark.parametrize("kafka", [{"acks": "all"}, {"acks": -1}, {"enable.idempotence": True}, {"linger.ms": 50}])
def test_what_keeps_the_promises_is_taken(kafka: dict[str, Any]) -> None:
    assert kafka.items() <= load(kafka=kafka).kafka.items()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"time_out": 1}, "time_out: no such setting; there are .*timeout_s", id="unknown"),
        pytest.param({"timeout_s": 0}, "timeout_s=0: .*greater than 0", id="no timeout"),
        pytest.param({"timeout_s": float("inf")}, "timeout_s=inf", id="for ever"),
        pytest.param({"timeout_s": float("nan")}, "timeout_s=nan", id="no number"),
        pytest.param({"max_in_flight": 0}, "max_in_flight=0", id="no room"),
        pytest.param({"requests": ""}, "requests=''", id="no topic"),
    ],
)
def test_a_wrong_setting_is_told_with_its_value(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(BadSettings, match=told):
        load(**fields)


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "client.yaml").write_text("batching: {linger_ms: 5}\n")
    with pytest.raises(BadSettings, match="batching: no such setting"):
        load(tmp_path / "client.yaml")


@pytest.mark.parametrize("text", ["kafka: [", "kafka: 5", "- a list"])
def test_a_file_that_makes_no_sense_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "client.yaml").write_text(text)
    with pytest.raises(BadSettings):
        load(tmp_path / "client.yaml")
    with pytest.raises(BadSettings, match=r"no configuration file at .*nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["- a\n", "requests\n", "5\n", "1: 2\n"])
def test_a_file_that_is_no_mapping_is_told_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "client.yaml").write_text(text)
    with pytest.raises(BadSettings, match=r"client\.yaml: expected a mapping of settings, as in requests: "):
        load(tmp_path / "client.yaml")


def test_a_kafka_value_that_is_none_is_told_in_one_sentence() -> None:
    with pytest.raises(BadSettings) as raised:
        load(kafka={"client.id": ["a"]})
    assert str(raised.value) == "kafka: client.id: expected text, a number, true or false; got list"


def test_a_key_that_librdkafka_does_not_know_is_told_by_open() -> None:
    with pytest.raises(BadSettings, match=r"no\.such\.key"):
        Client(kafka={"no.such.key": 1}).open()


def test_settings_are_frozen_and_do_not_show_secrets() -> None:
    settings = load(kafka={"sasl.password": "hush"})
    assert "hush" not in repr(settings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.timeout_s = 5  # type: ignore[misc]


def test_a_secret_is_not_told_with_an_error() -> None:
    with pytest.raises(BadSettings) as raised:
        load(kafka={"sasl.password": ["hush"]})
    assert "hush" not in str(raised.value)


def test_settings_and_fields_together_are_refused() -> None:
    with pytest.raises(BadSettings, match="not both"):
        Client(ClientSettings(), timeout_s=3)


@pytest.mark.parametrize("password", ["012345", "12345", "1e5", "true", "null", "{}", "a: b"])
@pytest.mark.parametrize("variable", ["SASL_PASSWORD", "SASL__PASSWORD"])
def test_a_password_that_looks_like_something_else_stays_text(
    monkeypatch: pytest.MonkeyPatch, variable: str, password: str
) -> None:
    monkeypatch.setenv(f"FOREBAY_KAFKA__{variable}", password)
    assert load().kafka["sasl.password"] == password


def test_a_secret_that_yaml_has_made_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "client.yaml").write_text("kafka: {sasl.password: 012345}\n")
    with pytest.raises(BadSettings, match=r"sasl\.password must be text; put it in quotes") as raised:
        load(tmp_path / "client.yaml")
    assert "5349" not in str(raised.value)


def test_a_secret_and_its_file_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_KAFKA__SASL_PASSWORD_FILE", "/run/secrets/password")
    with pytest.raises(BadSettings, match=r"sasl\.password and sasl\.password\.file are both given"):
        load(kafka={"sasl.password": "hush"})


def test_a_secret_file_that_is_missing_is_told_by_open() -> None:
    with pytest.raises(BadSettings, match=r"kafka\.sasl\.password\.file='/no/such/file': cannot be read: No such file"):
        Client(kafka={"sasl.password.file": "/no/such/file"}).open()


@pytest.mark.parametrize("kafka", [None, "host:9092"])
def test_kafka_that_is_no_mapping_is_told_as_such(kafka: Any) -> None:
    with pytest.raises(BadSettings, match="expected a mapping of librdkafka's keys"):
        load(kafka=kafka)


@pytest.mark.parametrize("name", [".", "..", "a b", "", "x" * 250])
def test_a_name_that_no_topic_can_have_is_refused(name: str) -> None:
    for field in ("requests", "replies"):
        with pytest.raises(BadSettings, match=f"{field}=.*: no topic name"):
            load(None, **{field: name})


@pytest.mark.parametrize(
    "variable", ["FOREBAY_TIMEOUT", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS", "forebay_reqests", "FOREBAY_TIMEOUT_S__X"]
)
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "5")
    with pytest.raises(BadSettings, match=f"{variable} is no variable of a client; there are .*FOREBAY_TIMEOUT_S"):
        load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            pytest.param(f"FOREBAY_{part.upper()}__X", "x", id=part)
            for part in WorkerSettings.model_fields
            if part != "kafka"
        ),
        pytest.param("FOREBAY_MODEL_SERVICE_HOST", "10.0.0.1", id="a service's host"),
        pytest.param("FOREBAY_WORKER_PORT", "tcp://10.0.0.1:9400", id="a service's address"),
        pytest.param("FOREBAY_WORKER_PORT_9400_TCP_ADDR", "10.0.0.1", id="a service's address, in parts"),
    ],
)
def test_a_variable_that_others_put_there_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    load()
