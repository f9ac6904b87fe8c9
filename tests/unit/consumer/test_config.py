"""What a worker may be told: file, environment and flags, and what each refusal says."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from forebay_consumer.config import REFUSED as REASONS
from forebay_consumer.config import BatchingSettings, WorkerSettings, load, load_for_letters
from forebay_consumer.errors import BadConfig
from forebay_producer import ClientSettings

KAFKA: Mapping[str, Any] = {"bootstrap.servers": "file:9092", "group.id": "group"}
DOCUMENT: Mapping[str, Any] = {
    "kafka": KAFKA,
    "topics": {"requests": ["requests"], "replies": ["replies"]},
    "model": {"name": "shout", "class": "models:Shout"},
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("FOREBAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "worker.yaml"


def read(file: Path, parts: Mapping[str, Any] | None = None, flags: Sequence[str] = ()) -> WorkerSettings:
    file.write_text(yaml.safe_dump({**DOCUMENT, **(parts or {})}, sort_keys=False))
    return load(file, flags)


def refusal(file: Path, parts: Mapping[str, Any] | None = None, flags: Sequence[str] = ()) -> str:
    with pytest.raises(BadConfig) as caught:
        read(file, parts, flags)
    return str(caught.value)


# --- where a value comes from ---


@pytest.mark.parametrize(
    ("in_file", "environment", "flags", "expected"),
    [
        pytest.param({}, {}, [], 32, id="none gives the default"),
        pytest.param({"max_batch_size": 8}, {}, [], 8, id="the file over the default"),
        pytest.param({"max_batch_size": 8}, {"MAX_BATCH_SIZE": "16"}, [], 16, id="the environment over the file"),
        pytest.param(
            {}, {"MAX_BATCH_SIZE": "16"}, ["batching.max_batch_size=64"], 64, id="a flag over the environment"
        ),
        pytest.param({"max_batch_size": 8}, {}, ["batching.max_batch_size=64"], 64, id="a flag over the file"),
        pytest.param({"max_batch_size": 8}, {"LOOKAHEAD": "2"}, ["batching.linger_ms=1"], 8, id="neighbours stay"),
    ],
)
def test_flags_beat_the_environment_which_beats_the_file(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_file: Mapping[str, int],
    environment: Mapping[str, str],
    flags: Sequence[str],
    expected: int,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"FOREBAY_BATCHING__{name}", value)
    assert read(file, {"batching": in_file}, flags).batching.rows == expected


def test_the_environment_alone_configures_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KAFKA__BOOTSTRAP_SERVERS": "env:9092",
        "KAFKA__GROUP_ID": "group",
        "TOPICS__REQUESTS": '["a", "b"]',
        "TOPICS__REPLIES": '["replies"]',
        "MODEL__NAME": "shout",
        "MODEL__CLASS": "models:Shout",
    }.items():
        monkeypatch.setenv(f"FOREBAY_{name}", value)
    settings = load(None)
    assert settings.kafka == {"bootstrap.servers": "env:9092", "group.id": "group"}
    assert settings.topics.requests == ("a", "b")
    assert settings.model.class_ == "models:Shout"


@pytest.mark.parametrize(
    "flag",
    [
        pytest.param("model.options.depth=2", id="a number"),
        pytest.param("model.options={depth: 2}", id="a whole mapping"),
    ],
)
def test_a_flag_has_a_yaml_value_and_may_reach_deep(file: Path, flag: str) -> None:
    assert read(file, flags=[flag]).model.options == {"depth": 2}


def test_each_loading_forgets_the_file_of_the_one_before(file: Path) -> None:
    read(file)
    with pytest.raises(BadConfig, match="model: Field required"):
        load(None)


# --- kafka ---

IN_FILE: Mapping[str, Mapping[str, Any]] = {
    "dotted": {"bootstrap.servers": "file"},
    "underscored": {"bootstrap_servers": "file"},
    "nested": {"bootstrap": {"servers": "file"}},
}
IN_ENVIRONMENT: Mapping[str, str] = {"underscored": "BOOTSTRAP_SERVERS", "nested": "BOOTSTRAP__SERVERS"}


@pytest.mark.parametrize("spelling", IN_FILE)
def test_a_kafka_key_may_be_spelled_in_the_file(file: Path, spelling: str) -> None:
    kafka = read(file, {"kafka": {"group.id": "group", **IN_FILE[spelling]}}).kafka
    assert kafka == {"group.id": "group", "bootstrap.servers": "file"}


@pytest.mark.parametrize("variable", IN_ENVIRONMENT)
@pytest.mark.parametrize("spelling", IN_FILE)
def test_a_kafka_variable_beats_the_file_in_each_spelling(
    file: Path, monkeypatch: pytest.MonkeyPatch, spelling: str, variable: str
) -> None:
    monkeypatch.setenv(f"FOREBAY_KAFKA__{IN_ENVIRONMENT[variable]}", "variable")
    kafka = read(file, {"kafka": {"group.id": "group", **IN_FILE[spelling]}}).kafka
    assert kafka == {"group.id": "group", "bootstrap.servers": "variable"}


@pytest.mark.parametrize("flag", ["bootstrap.servers", "bootstrap_servers", "BOOTSTRAP.SERVERS"])
@pytest.mark.parametrize("variable", IN_ENVIRONMENT)
@pytest.mark.parametrize("spelling", IN_FILE)
def test_a_kafka_flag_beats_a_kafka_variable_in_each_spelling(
    file: Path, monkeypatch: pytest.MonkeyPatch, spelling: str, variable: str, flag: str
) -> None:
    monkeypatch.setenv(f"FOREBAY_KAFKA__{IN_ENVIRONMENT[variable]}", "variable")
    settings = read(file, {"kafka": {"group.id": "group", **IN_FILE[spelling]}}, [f"kafka.{flag}=flag"])
    assert settings.kafka == {"group.id": "group", "bootstrap.servers": "flag"}


@pytest.mark.parametrize("password", ["012345", "12345", "1e5", "true", "null", "{a: b}", '"', "a: b", ""])
@pytest.mark.parametrize("variable", ["SASL_PASSWORD", "SASL__PASSWORD"])
def test_a_password_that_looks_like_something_else_stays_text(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, password: str
) -> None:
    assert read(file, flags=[f"kafka.sasl.password={password}"]).kafka["sasl.password"] == password
    monkeypatch.setenv(f"FOREBAY_KAFKA__{variable}", password)
    assert read(file).kafka["sasl.password"] == password


@pytest.mark.parametrize("key", ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret"])
def test_a_secret_that_yaml_has_made_a_number_is_refused(file: Path, key: str) -> None:
    message = refusal(file, {"kafka": {**KAFKA, key: 5349}})
    assert f"kafka: {key} must be text; put it in quotes" in message
    assert "5349" not in message


@pytest.mark.parametrize("given", [None, "host:9092", ["bootstrap.servers"]])
def test_kafka_that_is_no_mapping_is_told_as_such(file: Path, given: object) -> None:
    assert "kafka: expected a mapping of librdkafka's keys and values" in refusal(file, {"kafka": given})


def test_a_secret_and_its_file_together_are_refused(file: Path) -> None:
    kafka = {**KAFKA, "sasl.password": "hunter2", "sasl.password.file": "/run/secrets/password"}
    message = refusal(file, {"kafka": kafka})
    assert "sasl.password and sasl.password.file are both given" in message
    assert "hunter2" not in message


def test_the_file_of_a_secret_is_named_and_not_read_by_the_settings(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_KAFKA__SASL_PASSWORD_FILE", "/run/secrets/password")
    settings = read(file, {"kafka": {**KAFKA, "ssl.key.pem.file": "/run/secrets/key"}})
    wanted = {**KAFKA, "ssl.key.pem.file": "/run/secrets/key", "sasl.password.file": "/run/secrets/password"}
    assert settings.kafka == wanted
    assert settings.shown()["kafka"] == wanted


@pytest.mark.parametrize("spelling", ["oauth_cb", "oauth.cb", "OAUTH_CB"])
def test_the_function_for_tokens_keeps_its_name(file: Path, spelling: str) -> None:
    assert read(file, {"kafka": {**KAFKA, spelling: "tokens:fetch"}}).kafka["oauth_cb"] == "tokens:fetch"


REFUSED = [
    "request.required.acks",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "acks",
    "enable.idempotence",
    "transactional.id",
    "delivery.report.only.error",
    "enable.partition.eof",
]


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("spelling", ["dotted", "underscored", "nested", "upper case"])
def test_a_kafka_key_that_would_break_a_promise_is_refused(file: Path, key: str, spelling: str) -> None:
    parent, _, rest = key.partition(".")
    spelled: dict[str, Any] = {
        "dotted": {key: "x"},
        "underscored": {key.replace(".", "_"): "x"},
        "nested": {parent: {rest: "x"}} if rest else {key: "x"},
        "upper case": {key.upper(): "x"},
    }[spelling]
    assert f"kafka: {key} may not be set: {REASONS[key]}" in refusal(file, {"kafka": {**KAFKA, **spelled}})


def test_every_refusal_with_a_reason_is_tested() -> None:
    assert set(REASONS) == set(REFUSED)


@pytest.mark.parametrize("key", REFUSED)
def test_a_flag_or_variable_is_refused_like_the_file(file: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    assert f"{key} may not be set" in refusal(file, flags=[f"kafka.{key}=x"])
    monkeypatch.setenv(f"FOREBAY_KAFKA__{key.replace('.', '_').upper()}", "x")
    assert f"{key} may not be set" in refusal(file)


@pytest.mark.parametrize("key", ["bootstrap.servers", "group.id"])
@pytest.mark.parametrize("given", [pytest.param(None, id="left out"), pytest.param("", id="empty")])
def test_a_kafka_key_without_which_nothing_starts_is_asked_for(file: Path, key: str, given: str | None) -> None:
    kafka = {name: value for name, value in KAFKA.items() if name != key}
    if given is not None:
        kafka[key] = given
    assert f"kafka: {key} is missing" in refusal(file, {"kafka": kafka})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        pytest.param("partition.assignment.strategy", "range", "'cooperative-sticky'", id="strategy"),
        pytest.param("partition.assignment.strategy", "range,cooperative-sticky", "'cooperative-sticky'", id="list"),
        pytest.param("group.protocol", "share", "'classic' and 'consumer'", id="protocol"),
    ],
)
def test_a_kafka_value_out_of_its_choice_is_refused(file: Path, key: str, value: str, allowed: str) -> None:
    message = refusal(file, {"kafka": {**KAFKA, key: value}})
    assert f"{key}={value!r}" in message
    assert allowed in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("group.protocol", "consumer"),
        ("sasl.username", "me"),
        ("session.timeout.ms", 6000),
        ("enable.ssl.certificate.verification", False),
    ],
)
def test_any_other_kafka_key_is_passed_on_as_it_is(file: Path, key: str, value: object) -> None:
    passed = read(file, {"kafka": {**KAFKA, key: value}}).kafka[key]
    assert passed == value
    assert type(passed) is type(value)


# --- what is refused, and how it is said ---


@pytest.mark.parametrize(
    ("part", "key", "value", "allowed"),
    [
        pytest.param("batching", "max_batch_size", 0, "greater than or equal to 1", id="no rows"),
        pytest.param("batching", "max_batch_size", 65_537, "less than or equal to 65536", id="too many rows"),
        pytest.param("batching", "linger_ms", -1, "greater than or equal to 0", id="a linger before now"),
        pytest.param("batching", "lookahead", 0, "greater than or equal to 1", id="no look-ahead"),
        pytest.param("batching", "max_batch_cost", 0, "greater than or equal to 1", id="no cost"),
        pytest.param("delivery", "mode", "at-most-once", "'at-least-once'", id="a mode there is not"),
        pytest.param("delivery", "start", "middle", "'earliest', 'latest' or 'fail'", id="a start there is not"),
        pytest.param("delivery", "max_uncommitted", 0, "greater than or equal to 1", id="nothing uncommitted"),
        pytest.param("limits", "max_in_flight", 0, "greater than or equal to 1", id="nothing in flight"),
        pytest.param("limits", "preprocess_threads", 0, "greater than or equal to 1", id="no threads"),
        pytest.param("metrics", "port", 65_536, "less than or equal to 65535", id="no port"),
        pytest.param("logging", "level", "loud", "'debug', 'info', 'warning' or 'error'", id="a level there is not"),
    ],
)
def test_a_refusal_names_the_key_the_value_and_what_is_allowed(
    file: Path, part: str, key: str, value: object, allowed: str
) -> None:
    message = refusal(file, {part: {key: value}})
    assert f"{part}.{key}: " in message
    assert f"(given: {value!r})" in message
    assert allowed in message
    assert str(file) in message


def test_every_problem_is_named_at_once(file: Path) -> None:
    message = refusal(file, {"batching": {"max_batch_size": 0, "lookahead": 0}, "logging": {"level": "loud"}})
    assert [key for key in ("batching.max_batch_size", "batching.lookahead", "logging.level") if key in message] == [
        "batching.max_batch_size",
        "batching.lookahead",
        "logging.level",
    ]


@pytest.mark.parametrize(
    ("parts", "where", "allowed"),
    [
        pytest.param({"bathcing": {}}, "bathcing", "kafka, topics, delivery, batching, model, ", id="a part"),
        pytest.param(
            {"batching": {"linger": 1}}, "batching.linger", ", ".join(BatchingSettings.model_fields), id="a part's key"
        ),
        pytest.param(
            {"topics": {**DOCUMENT["topics"], "reply": "x"}}, "topics.reply", "requests, replies, ", id="of the topics"
        ),
        pytest.param(
            {"model": {**DOCUMENT["model"], "warmup": {"size": 1}}},
            "model.warmup.size",
            "samples, ",
            id="deeper",
        ),
        pytest.param({"model": {**DOCUMENT["model"], "klass": 1}}, "model.klass", "task, path, class, ", id="a model"),
        pytest.param(
            {"model": {**DOCUMENT["model"], "instance_group": [{"gpus": 1}]}},
            "model.instance_group.0.gpus",
            "count, devices",
            id="in a list",
        ),
    ],
)
def test_an_unknown_key_is_an_error_that_says_what_is_allowed(
    file: Path, parts: Mapping[str, Any], where: str, allowed: str
) -> None:
    told = next(line for line in refusal(file, parts).splitlines() if line.startswith(f"  {where}: "))
    assert told.startswith(f"  {where}: no such setting; allowed are ")
    assert allowed in told


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        pytest.param("FOREBAY_TOPICS__REQUESTS", "inference.requests", id="a list"),
        pytest.param("FOREBAY_MODEL__OPTIONS", "dtype: fast", id="a mapping"),
        pytest.param("FOREBAY_BATCHING", "5 ms", id="a part"),
    ],
)
def test_a_variable_that_is_no_json_is_named_with_its_form(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    assert refusal(file).startswith(
        f'the environment: {variable}: a list or a mapping is written as JSON in a variable, as in ["a", "b"] or '
        '{"a": 1}; what it holds is none (E'
    )


@pytest.mark.parametrize("variable", ["FOREBAY_KAFKA", "FOREBAY_MODEL__OPTIONS"])
def test_a_variable_that_is_no_json_is_not_repeated(file: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, '{"api_key": "hunter2", "sasl.password": "hunter2",}')
    told = refusal(file)
    assert variable in told
    assert "hunter2" not in told


@pytest.mark.parametrize("part", ["kafka", "topics", "model"])
def test_a_missing_part_is_asked_for(file: Path, part: str) -> None:
    file.write_text(yaml.safe_dump({name: value for name, value in DOCUMENT.items() if name != part}))
    with pytest.raises(BadConfig, match=f"  {part}: Field required"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no configuration file at .*absent\.yaml"):
        load(tmp_path / "absent.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no configuration file at"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param(
            {"topics": {"requests": "requests", "replies": ["replies"]}},
            "topics.requests: expected a list, as in [a, b] (given: 'requests')",
            id="a word for a list",
        ),
        pytest.param(
            {"model": {**DOCUMENT["model"], "instance_group": {"count": 2}}},
            "model.instance_group: expected a list, as in [{a: 1}] (given: a mapping)",
            id="a mapping for a list of them",
        ),
        pytest.param(
            {"model": {**DOCUMENT["model"], "instance_group": [2]}},
            "model.instance_group.0: expected a mapping, as in {a: 1} (given: 2)",
            id="a number in a list of mappings",
        ),
        pytest.param(
            {"batching": 5}, "batching: expected a mapping, as in {a: 1} (given: 5)", id="a number for a part"
        ),
        pytest.param(
            {"model": {**DOCUMENT["model"], "options": "fast"}},
            "model.options: expected a mapping, as in {a: 1} (given: 'fast')",
            id="a word for options",
        ),
        pytest.param(
            {"topics": {"requests": [], "replies": ["replies"]}},
            "topics.requests: expected a list of at least one entry (given: [])",
            id="an empty list",
        ),
        pytest.param(
            {"kafka": {**KAFKA, "client.id": ["a"]}},
            "kafka: client.id: expected text, a number, true or false; got list",
            id="a list for a kafka key",
        ),
        pytest.param(
            {"batching": {"linger_ms": 20}, "limits": {"request_ttl_ms": 10}},
            "as a whole: batching.linger_ms=20 is not less than limits.request_ttl_ms=10: a lone request would expire "
            "while it waits for company",
            id="two that do not go together",
        ),
        pytest.param(
            {"limits": {"forward_timeout_ms": "none"}},
            "limits.forward_timeout_ms: Input should be a valid integer, unable to parse string as an integer; null "
            "for none (given: 'none')",
            id="none in words",
        ),
        pytest.param(
            {"limits": {"shutdown_ms": "none"}},
            "limits.shutdown_ms: Input should be a valid integer, unable to parse string as an integer (given: 'none')",
            id="none where there is none",
        ),
    ],
)
def test_a_value_of_the_wrong_form_is_told_the_form_of_the_file(
    file: Path, parts: Mapping[str, Any], said: str
) -> None:
    _, *told = refusal(file, parts).splitlines()
    assert told == [f"  {said}"]


def test_all_that_may_hold_what_is_wrong_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_BATCHING__LINGER_MS", "often")
    file.write_text("")
    with pytest.raises(BadConfig) as caught:
        load(file, ["limits.shutdown_ms=5"])
    assert str(caught.value).splitlines()[0] == (
        f"the configuration ({file}, FOREBAY_… variables, --set) cannot be used:"
    )
    monkeypatch.delenv("FOREBAY_BATCHING__LINGER_MS")
    file.write_text("batching: {linger_ms: often}")
    with pytest.raises(BadConfig) as caught:
        load(file)
    assert str(caught.value).splitlines()[0] == f"the configuration ({file}) cannot be used:"


def test_without_a_file_the_flag_that_names_one_is_told() -> None:
    with pytest.raises(BadConfig, match=r"kafka: Field required\n(.*\n)*  no file was read; give --config"):
        load(None)


def test_with_a_file_no_other_is_asked_for(file: Path) -> None:
    file.write_text("")
    with pytest.raises(BadConfig) as caught:
        load(file)
    assert "--config" not in str(caught.value)


def test_an_empty_file_misses_its_parts(file: Path) -> None:
    file.write_text("")
    with pytest.raises(BadConfig, match="topics: Field required"):
        load(file)


def test_a_flag_without_a_value_is_refused(file: Path) -> None:
    assert "--set batching.linger_ms: expected part.key=value" in refusal(file, flags=["batching.linger_ms"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(["foo"], "--set foo: expected part.key=value", id="a word"),
        pytest.param(["=5"], "--set : expected part.key=value", id="no key"),
        pytest.param(["batching.=5"], "--set batching.: expected part.key=value", id="half a key"),
        pytest.param(["batching.linger_ms=[1"], "--set batching.linger_ms: not readable as YAML", id="half a list"),
        pytest.param(["model.version=2024-02-30"], "--set model.version: not readable as YAML: a date", id="no date"),
        pytest.param(["kafka=hunter2: ["], "--set kafka: not readable as YAML", id="half of kafka"),
        pytest.param(["batching=5"], "batching: expected a mapping, as in {a: 1}", id="a part that is a number"),
        pytest.param(["foo=5"], "foo: no such setting; allowed are kafka, topics", id="a part there is not"),
    ],
)
def test_a_flag_that_makes_no_sense_is_told_as_a_flag(file: Path, flags: Sequence[str], said: str) -> None:
    message = refusal(file, flags=flags)
    assert said in message
    assert "hunter2" not in message


def test_a_later_flag_beats_an_earlier_one(file: Path) -> None:
    flags = ["batching=5", "batching.batch_size=3", "batching.max_batch_size=4", "batching.lookahead=2"]
    batching = read(file, flags=flags).batching
    assert (batching.max_batch_size, batching.lookahead) == (4, 2)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        pytest.param("FOREBAY_BATCHNG__LINGER_MS", "", id="a misspelt part"),
        pytest.param("FOREBAY_BATCHING_LINGER_MS", "FOREBAY_BATCHING__…", id="one underscore"),
        pytest.param("forebay_kafka_group_id", "FOREBAY_KAFKA__…", id="lower case"),
        pytest.param("FOREBAY_", "", id="nothing"),
    ],
)
def test_a_misspelt_variable_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, hint: str) -> None:
    monkeypatch.setenv(variable, "5")
    message = refusal(file)
    assert f"the environment: {variable} is no variable of a worker" in message
    assert hint in message
    assert all(part.upper() in message for part in WorkerSettings.model_fields)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            pytest.param(f"FOREBAY_{name.upper()}", "x", id=f"a client's {name}")
            for name in ClientSettings.model_fields
            if name != "kafka"
        ),
        pytest.param("FOREBAY_MODEL_SERVICE_HOST", "10.0.0.1", id="a service's host"),
        pytest.param("FOREBAY_SERVICE_PORT_METRICS", "9400", id="a service's named port"),
        pytest.param("FOREBAY_WORKER_PORT", "tcp://10.0.0.1:9400", id="a service's address"),
        pytest.param("FOREBAY_WORKER_PORT_9400_TCP_ADDR", "10.0.0.1", id="a service's address, in parts"),
    ],
)
def test_a_variable_that_others_put_there_is_left_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    read(file)


# --- batching ---


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("batch_size", "max_batch_size"),
        ("max_batch_size", "max_batch_size"),
        ("max_queue_delay_ms", "linger_ms"),
        ("max_batch_delay", "linger_ms"),
        ("linger_ms", "linger_ms"),
    ],
)
def test_each_name_of_a_batching_option_is_understood_everywhere(
    file: Path, monkeypatch: pytest.MonkeyPatch, alias: str, name: str
) -> None:
    assert getattr(read(file, {"batching": {alias: 7}}).batching, name) == 7
    assert getattr(read(file, flags=[f"batching.{alias}=8"]).batching, name) == 8
    monkeypatch.setenv(f"FOREBAY_BATCHING__{alias.upper()}", "9")
    assert getattr(read(file).batching, name) == 9


@pytest.mark.parametrize("alias", ["batch_size", "max_batch_size"])
@pytest.mark.parametrize("below", ["batch_size", "max_batch_size"])
def test_a_higher_source_wins_under_each_of_a_settings_names(
    file: Path, monkeypatch: pytest.MonkeyPatch, below: str, alias: str
) -> None:
    parts = {"batching": {below: 7}}
    assert read(file, parts, [f"batching.{alias}=8"]).batching.max_batch_size == 8
    monkeypatch.setenv(f"FOREBAY_BATCHING__{alias.upper()}", "9")
    assert read(file, parts).batching.max_batch_size == 9
    assert read(file, parts, [f"batching.{below}=10"]).batching.max_batch_size == 10


def test_two_names_of_one_setting_in_one_source_are_refused(file: Path) -> None:
    message = refusal(file, {"batching": {"batch_size": 7, "max_batch_size": 8}})
    assert "batching: max_batch_size and batch_size are names of one setting" in message


@pytest.mark.parametrize(
    ("sizes", "refused"),
    [
        pytest.param([4, 8], None, id="up to the largest"),
        pytest.param([4, 9], 9, id="one more than the largest"),
        pytest.param([0], 0, id="none"),
    ],
)
def test_002_12_a_preferred_size_must_fit_a_batch(file: Path, sizes: Sequence[int], refused: int | None) -> None:
    parts = {"batching": {"max_batch_size": 8, "preferred_batch_sizes": sizes}}
    if refused is None:
        assert read(file, parts).batching.preferred_batch_sizes == tuple(sizes)
    else:
        assert f"preferred_batch_sizes: {refused} is not within 1 and max_batch_size=8" in refusal(file, parts)


def test_a_linger_in_which_a_lone_request_would_expire_is_refused(file: Path) -> None:
    parts = {"batching": {"linger_ms": 1000}, "limits": {"request_ttl_ms": 1000}}
    assert "batching.linger_ms=1000 is not less than limits.request_ttl_ms=1000" in refusal(file, parts)


def test_a_flow_that_holds_no_full_batch_is_refused(file: Path) -> None:
    parts = {"batching": {"max_batch_size": 8}, "limits": {"max_in_flight": 7}}
    assert "limits.max_in_flight=7 is less than batching.max_batch_size=8" in refusal(file, parts)
    assert read(file, {**parts, "limits": {"max_in_flight": 8}}).limits.max_in_flight == 8


# --- delivery ---


def test_delivery_may_be_a_plain_mode(file: Path) -> None:
    settings = read(file, {"delivery": "at-least-once"})
    assert settings.delivery == read(file, {"delivery": {"mode": "at-least-once"}}).delivery


@pytest.mark.parametrize("word", ["at-least-once", '{"mode": "at-least-once"}'])
def test_a_plain_delivery_above_keeps_what_stands_below(file: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    parts = {"delivery": {"start": "latest", "drain_ms": 1}}
    assert read(file, parts, [f"delivery={word}"]).delivery.start == "latest"
    assert read(file, parts, [f"delivery={word}", "delivery.start=fail"]).delivery.start == "fail"
    monkeypatch.setenv("FOREBAY_DELIVERY", word)
    monkeypatch.setenv("FOREBAY_DELIVERY__DRAIN_MS", "2")
    delivery = read(file, parts).delivery
    assert (delivery.mode, delivery.start, delivery.drain_ms) == ("at-least-once", "latest", 2)


def test_a_plain_delivery_is_checked_as_a_mode(file: Path) -> None:
    said = refusal(file, {"delivery": "maybe"})
    assert "delivery.mode: Input should be 'at-least-once', 'exactly-once' or 'queue' (given: 'maybe')" in said


def test_exactly_once_reads_committed_requests_and_offsets_alone(file: Path) -> None:
    kafka = {"bootstrap.servers": "localhost:9092", "group.id": "g", "isolation.level": "read_uncommitted"}
    assert "kafka.isolation.level='read_uncommitted'" in refusal(file, {"delivery": "exactly-once", "kafka": kafka})
    read(file, {"delivery": "at-least-once", "kafka": kafka})


# --- topics ---


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        pytest.param({"requests": []}, "topics.requests: ", id="no request topic"),
        pytest.param({"replies": []}, "topics.replies: ", id="no reply topic"),
        pytest.param({"replies": ["^replies-.*"]}, "'^replies-.*' must be a topic name", id="a pattern comes first"),
        pytest.param({"replies": ["replies", "^("]}, "'^(' is no regular expression", id="a broken pattern"),
        pytest.param({"replies": ["replies", "^re.*"]}, "'^re.*' matches the request topic 'requests'", id="too wide"),
        pytest.param({"replies": ["requests"]}, "'requests' is also a request topic", id="answers as requests"),
        pytest.param({"requests": ["a", "a"]}, "requests: a, a names a topic twice", id="twice"),
        pytest.param({"dead_letters": "replies"}, "'replies' is for replies and for dead letters", id="both in one"),
        pytest.param(
            {"replies": ["replies", "^dead.*"], "dead_letters": "dead"},
            "'^dead.*' matches the dead-letter topic 'dead'",
            id="clients among the letters",
        ),
        pytest.param({"dead_letters": "requests"}, "'requests' is also a request topic", id="letters as requests"),
        pytest.param({"requests": ["a b"]}, "'a b' is no topic name", id="a space in a request topic"),
        pytest.param({"replies": ["replies", "ä"]}, "'ä' is no topic name", id="an umlaut in a reply topic"),
        pytest.param({"requests": ["."]}, "'.' is no topic name", id="one dot"),
        pytest.param({"replies": ["replies", ".."]}, "'..' is no topic name", id="two dots"),
        pytest.param({"dead_letters": "x" * 250}, "is no topic name; allowed are 1 to 249", id="a name too long"),
    ],
)
def test_topics_that_cannot_work_are_refused(file: Path, topics: Mapping[str, Any], said: str) -> None:
    assert said in refusal(file, {"topics": {**DOCUMENT["topics"], **topics}})


def test_patterns_may_follow_the_first_reply_topic(file: Path) -> None:
    # `search` would find it in "requests"; an allow-list is about whole names.
    replies = ["replies", "^replies-[a-z]+", "^request"]
    assert read(file, {"topics": {"requests": ["requests"], "replies": replies}}).topics.replies == tuple(replies)


# --- model ---


@pytest.mark.parametrize(
    ("model", "said"),
    [
        pytest.param({}, "exactly one of task and class must be given", id="neither"),
        pytest.param({"task": "fill-mask", "path": "x", "class": "a:B"}, "exactly one of task and class", id="both"),
        pytest.param({"task": "fill-mask"}, "task 'fill-mask' needs the folder or hub name", id="a task, no path"),
        pytest.param({"class": "a:B", "path": "x"}, "path belongs to task", id="a class with a path"),
        pytest.param({"class": "a:B", "instance_group": []}, "model.instance_group: ", id="no instances"),
    ],
)
def test_a_model_comes_from_exactly_one_source(file: Path, model: Mapping[str, Any], said: str) -> None:
    assert said in refusal(file, {"model": {"name": "shout", **model}})


# --- retry and limits of a pass ---


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param({"retry": {"attempts": 0}}, "retry.attempts: ", id="no attempt at all"),
        pytest.param({"retry": {"trials": 0}}, "retry.trials: ", id="no trial at all"),
        pytest.param({"retry": {"backoff_ms": -1}}, "retry.backoff_ms: ", id="a wait before now"),
        pytest.param({"limits": {"forward_timeout_ms": 0}}, "limits.forward_timeout_ms: ", id="no time for a pass"),
        pytest.param({"limits": {"request_ttl_ms": 0}}, "limits.request_ttl_ms: ", id="no time to live"),
        pytest.param(
            {"model": {**DOCUMENT["model"], "error_detail": "all"}}, "model.error_detail: ", id="an unknown detail"
        ),
    ],
)
def test_a_limit_that_nothing_could_keep_is_refused(file: Path, parts: Mapping[str, Any], said: str) -> None:
    assert said in refusal(file, parts)


def test_a_pass_is_limited_by_default_and_the_limit_can_be_taken_off(file: Path) -> None:
    assert read(file).limits.forward_timeout_ms == 60_000
    assert read(file, {"limits": {"forward_timeout_ms": None}}).limits.forward_timeout_ms is None


# --- secrets ---

SECRETS = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl_password",
]


@pytest.mark.parametrize("key", SECRETS)
def test_shown_settings_hide_a_secret(file: Path, key: str) -> None:
    settings = read(file, {"kafka": {**KAFKA, key: "hunter2"}})
    assert "hunter2" not in str(settings.shown())
    assert settings.shown()["kafka"][key.replace("_", ".")] == "***"
    assert settings.kafka[key.replace("_", ".")] == "hunter2"


def test_shown_settings_are_plain_and_say_class_as_the_file_does(file: Path) -> None:
    shown = read(file).shown()
    assert shown["kafka"] == KAFKA
    assert shown["model"]["class"] == "models:Shout"
    assert "class_" not in shown["model"]
    assert yaml.safe_load(yaml.safe_dump(shown)) == shown


@pytest.mark.parametrize(
    "key", ["token", "api_key", "hub-token", "Password", "key", "access_key", "accessKey", "authToken", "private-key"]
)
def test_shown_settings_hide_a_secret_among_the_models_options(file: Path, key: str) -> None:
    options = {"tokenizer": "fast", "keyboard": "us", "deep": [{key: "hunter2"}], key: "hunter2"}
    shown = read(file, {"model": {**DOCUMENT["model"], "options": options}}).shown()["model"]["options"]
    assert shown == {"tokenizer": "fast", "keyboard": "us", "deep": [{key: "***"}], key: "***"}


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize(
    "kafka",
    [
        pytest.param({"acks": "1"}, id="another key is refused"),
        pytest.param({"group.id": ""}, id="another key is missing"),
        pytest.param({}, id="the secret itself has a wrong type"),
    ],
)
def test_no_refusal_tells_a_secret(file: Path, key: str, kafka: Mapping[str, Any]) -> None:
    secret: object = "hunter2" if kafka else ["hunter2"]
    assert "hunter2" not in refusal(file, {"kafka": {**KAFKA, key: secret, **kafka}})


def test_the_commands_on_dead_letters_need_only_kafka_and_topics(file: Path) -> None:
    parts = {name: part for name, part in DOCUMENT.items() if name != "model"}
    file.write_text(yaml.safe_dump({**parts, "batching": {"max_batch_size": "unread"}}))
    settings = load_for_letters(file, ["topics.dead_letters=dead"])
    assert settings.kafka == KAFKA
    assert settings.topics.dead_letters == "dead"


def test_the_commands_on_dead_letters_refuse_a_part_that_no_worker_has(file: Path) -> None:
    file.write_text(yaml.safe_dump({**DOCUMENT, "topic": {}}))
    with pytest.raises(BadConfig, match=r"topic is no part; allowed are kafka, topics, "):
        load_for_letters(file)
