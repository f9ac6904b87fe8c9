"""Which device each copy of the model gets, and which rows warm it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from forebay_consumer.build import build, make_models, placements, search_of, warmup_rows
from forebay_consumer.by_offset import by_offset
from forebay_consumer.config import ModelSettings, WarmupSettings, WorkerSettings
from forebay_consumer.errors import BadConfig, KafkaFailure
from forebay_consumer.expiry import NO_EXPIRY
from forebay_consumer.failure import Failure
from forebay_consumer.flow import Flow
from forebay_consumer.instance import Search
from forebay_consumer.intake.group import GroupIntake
from forebay_consumer.ledger import Mark
from forebay_consumer.messages import Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.model import Model
from forebay_consumer.progress import Progress
from forebay_consumer.record import Claim
from forebay_consumer.roles import Setting
from forebay_consumer.routes import Routes
from forebay_consumer.shutdown import Shutdown
from forebay_consumer.trials import Trials
from forebay_consumer.window import Rules
from forebay_schemas import Content, read_request
from forebay_schemas import Model as Served
from support.consumer import make_record


class TwoCards(Model):
    def forward(self, batch: Any) -> Any:
        return batch

    def samples(self) -> Sequence[Any]:
        return ["own sample"]

    @classmethod
    def default_devices(cls) -> Sequence[str]:
        return ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        pytest.param([{}], ["cuda:0", "cuda:1"], id="one on each default device"),
        pytest.param([{"count": 2}], ["cuda:0", "cuda:0", "cuda:1", "cuda:1"], id="two on each default device"),
        pytest.param([{"devices": ["cpu"]}], ["cpu"], id="on the named device alone"),
        pytest.param([{"count": 2, "devices": ["cpu"]}], ["cpu", "cpu"], id="two on a named device"),
        pytest.param(
            [{"devices": ["cuda:1"]}, {"count": 2, "devices": ["cpu"]}], ["cuda:1", "cpu", "cpu"], id="group by group"
        ),
    ],
)
def test_every_group_gets_its_count_on_each_of_its_devices(groups: list[dict[str, Any]], devices: list[str]) -> None:
    settings = ModelSettings.model_validate({"name": "m", "class": "a:B", "instance_group": groups})
    assert placements(settings, TwoCards) == devices


def test_no_group_means_one_copy_on_each_default_device() -> None:
    assert placements(ModelSettings.model_validate({"name": "m", "class": "a:B"}), TwoCards) == ["cuda:0", "cuda:1"]


class Deep(TwoCards):
    def __init__(self, depth: int = 1) -> None:
        if depth < 0:
            raise TypeError("no way up")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"dept": 2}, "model.options: dept is no option of Deep; allowed are depth", id="a misspelt one"),
        pytest.param({"depth": -1}, "model.options: no way up", id="another TypeError of the constructor"),
    ],
)
def test_an_option_that_the_model_does_not_take_is_named_with_those_it_does(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("forebay_consumer.build.model_class", lambda *_: Deep)
    given = ModelSettings.model_validate({"name": "m", "class": "a:Deep", "options": options})
    with pytest.raises(BadConfig) as refused:
        make_models(given)
    assert str(refused.value) == said


def test_without_rows_of_its_own_a_warmup_uses_the_models_samples() -> None:
    assert list(warmup_rows(WarmupSettings(), TwoCards())) == ["own sample"]


def test_configured_rows_replace_the_models_samples_and_files_follow_samples(tmp_path: Path) -> None:
    text, image = tmp_path / "a.txt", tmp_path / "b.jpg"
    text.write_bytes("Grüße".encode())
    image.write_bytes(b"\xff\xd8\xff\x00")
    settings = WarmupSettings(samples=("one", {"any": 1}), files=(text, image))
    assert warmup_rows(settings, TwoCards()) == ["one", {"any": 1}, "Grüße", b"\xff\xd8\xff\x00"]


def test_a_warmup_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"model\.warmup\.files: .*absent\.jpg: No such file"):
        warmup_rows(WarmupSettings(files=(tmp_path / "absent.jpg",)), TwoCards())


def test_a_warmup_text_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(BadConfig, match=r"model\.warmup\.files: .*latin\.txt: not UTF-8 text \(byte 2\)"):
        warmup_rows(WarmupSettings(files=(tmp_path / "latin.txt",)), TwoCards())


def test_warmup_samples_reach_the_model_as_rows_of_a_request_do() -> None:
    samples = ("plain", {"text": "wrapped"}, {"image": "/9g="}, {"any": 1}, {"text": "a", "more": 2})
    found = warmup_rows(WarmupSettings(samples=samples), TwoCards())
    _, content = read_request(make_record(value=orjson.dumps({"inputs": samples})))
    assert isinstance(content, Content)
    assert found == content.inputs == ["plain", "wrapped", b"\xff\xd8", {"any": 1}, {"text": "a", "more": 2}]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        pytest.param({"image": "not base64!"}, r"model\.warmup\.samples\[1\]: image: not valid base64", id="base64"),
        pytest.param({"text": 7}, r"model\.warmup\.samples\[1\]: text: expected a string", id="text"),
    ],
)
def test_a_warmup_sample_that_no_request_could_carry_is_named(sample: Any, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        warmup_rows(WarmupSettings(samples=("fine", sample)), TwoCards())


def settings(**parts: Any) -> WorkerSettings:
    kafka = {"bootstrap.servers": "nowhere:9092", "group.id": "g"}
    topics = {"requests": ["requests"], "replies": ["replies"]}
    model = {"name": "m", "class": "a:B", **parts.pop("model", {})}
    return WorkerSettings(**{"kafka": kafka, "topics": topics, "model": model, **parts})


class OfTwelve(TwoCards):
    max_batch_size = 12


@pytest.mark.parametrize(
    ("parts", "search"),
    [
        pytest.param({}, Search(64, None), id="neither is given"),
        pytest.param({"batching": {"max_batch_cost": 900}}, Search(64, 900), id="the cost is given"),
        pytest.param({"batching": {"max_batch_size": 32}}, None, id="the size is given"),
        pytest.param({"batching": {"preferred_batch_sizes": [8]}}, None, id="sizes are preferred"),
        pytest.param({"model": {"warmup": {"count": 0}}}, None, id="nothing runs before requests"),
    ],
)
def test_sizes_are_sought_where_none_is_given(parts: dict[str, Any], search: Search | None) -> None:
    assert search_of(settings(**parts), 64, [TwoCards()]) == search


def test_no_more_rows_are_sought_than_the_model_takes() -> None:
    assert search_of(settings(), 64, [OfTwelve(), OfTwelve()]) == Search(12, None)


def test_without_a_profile_a_batch_has_32_rows() -> None:
    assert settings().batching.rows == 32
    assert settings(batching={"max_batch_size": 8}).batching.rows == 8


def test_exactly_once_claims_enough_for_the_batches_that_a_profile_found() -> None:
    """Else none of them is ever full, and each waits its whole linger for records that no commit lets in."""
    given = settings(delivery={"mode": "exactly-once"}, limits={"max_in_flight": 4096})
    metrics = Metrics()
    writer = Writer(Routes(["replies"]), None, Served("m"), {})
    failure, shutdown = Failure(), Shutdown(1.0)
    mode = by_offset(
        Setting(given, Rules(32), NO_EXPIRY, 1, Flow(4096, 1 << 30), writer, metrics, failure, shutdown), 4096
    )
    trials, claim = mode.admission, Claim("requests", 0, 1)
    assert isinstance(trials, Trials)
    mode.feed.bound(512, None)
    trials.open(claim, 0, Progress(), 4096)
    trials.accepted(claim, trials.progress(claim, Mark(0)))
    inside, _ = trials.admit([make_record(offset) for offset in range(4096)])
    assert len(inside) == 4 * 512


@pytest.mark.parametrize("failed", [False, True])
def test_who_is_to_end_asks_no_more_where_an_assignment_begins(failed: bool) -> None:
    metrics, failure, shutdown = Metrics(), Failure(), Shutdown(1.0)
    writer = Writer(Routes(["replies"]), None, Served("m"), {})
    setting = Setting(settings(), Rules(32), NO_EXPIRY, 1, Flow(4096, 1 << 30), writer, metrics, failure, shutdown)
    intake = by_offset(setting, 4096).intake
    assert isinstance(intake, GroupIntake)
    assert not intake._leaving()
    if failed:
        failure.report(KafkaFailure("no right to write"))
    else:
        shutdown.ask()
    assert intake._leaving()


def test_each_copy_is_judged_by_its_own_outcomes() -> None:
    """Else one that is broken hides among those that are well."""
    made = build(settings(model={"name": "m", "class": f"{__name__}:TwoCards"}), Shutdown(1.0))
    breakers = [instance._breaker for instance in made._instances._instances]
    assert len({id(breaker) for breaker in breakers}) == 2
