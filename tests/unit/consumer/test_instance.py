"""One instance and its passes: watched, counted, translated, and answered one outcome per record."""

import gc
import json
import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from forebay_consumer import FatalError, Model, OutOfMemory, TransientError
from forebay_consumer.breaker import Breaker, ModelFails
from forebay_consumer.detail import Detail
from forebay_consumer.errors import DeviceLost, ModelUnavailable
from forebay_consumer.expiry import NO_EXPIRY, Expiry
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.instance import Instance, Instances, Search
from forebay_consumer.metrics import Metrics
from forebay_consumer.profile import Sizes
from forebay_consumer.record import Fault, Item, Outcome, Success
from forebay_consumer.retries import Retries
from forebay_consumer.window import Rules, Window
from forebay_schemas import Code, InvalidRequest
from forebay_schemas.documents import reply_schema
from support.consumer import ManualClock, Watched, make_item


class Answering(Model):
    """Gives each row back; `on_pass` may raise first."""

    def __init__(self, on_pass: Callable[[Sequence[Any]], None] = lambda _rows: None) -> None:
        self.on_pass = on_pass

    def forward(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.on_pass(batch)
        return batch


class _Row(str):
    """Of which one can see whether it is still there."""

    __slots__ = ("__weakref__",)


class Bench:
    """An instance with all that it needs, none of it real."""

    def __init__(
        self,
        model: Model,
        *,
        attempts: int = 1,
        ttl_s: float | None = None,
        detail: Detail = "message",
        rules: Rules = Rules(max_rows=32),  # noqa: B008 - frozen
    ) -> None:
        self.clock = ManualClock(1000.0)
        self.metrics = Metrics()
        self.published: list[Outcome] = []
        self.dog = Watched()
        self.feed = Feed(Window(rules), lambda _claim: True, self.clock, expiry=NO_EXPIRY)
        self.instance = Instance(
            0,
            "cpu",
            model,
            self.feed,
            self._publish,
            self.metrics,
            self.dog,
            Retries(attempts, pause=self.clock.advance, chance=lambda: 0.0),
            Breaker(window=8, share=0.5),
            Expiry(ttl_s, self.clock),
            detail,
            self.clock,
        )

    def _publish(self, outcomes: Sequence[Outcome]) -> None:
        self.published += outcomes
        self.feed.close()

    def run(self, *items: Item) -> Mapping[int, Outcome]:
        """Outcomes of one batch, by offset."""
        self.feed.put(items)
        self.feed.drain()
        self.instance.serve()
        assert [outcome.record.offset for outcome in self.published] == [item.record.offset for item in items]
        return {outcome.record.offset: outcome for outcome in self.published}

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"forebay_{name}") or 0.0


def failing(error: Exception, row: str = "1.0") -> Answering:
    """A model that raises `error` for a batch with that row; rows of `make_item` are "<offset>.<row>"."""

    def on_pass(rows: Sequence[Any]) -> None:
        if row in rows:
            raise error

    return Answering(on_pass)


def codes(outcomes: Mapping[int, Outcome]) -> dict[int, Code | None]:
    return {offset: outcome.code if isinstance(outcome, Fault) else None for offset, outcome in outcomes.items()}


def test_every_item_gets_its_own_rows_back() -> None:
    outcomes = Bench(Answering()).run(make_item(0), make_item(1, rows=3), make_item(2))
    assert [outcome.outputs for outcome in outcomes.values() if isinstance(outcome, Success)] == [
        ["0.0"],
        ["1.0", "1.1", "1.2"],
        ["2.0"],
    ]


def test_the_timing_of_an_answer_is_that_of_the_contract() -> None:
    (outcome,) = Bench(Answering()).run(make_item(0)).values()
    assert isinstance(outcome, Success)
    described = reply_schema()["$defs"]["timing"]["description"]
    page = (Path(__file__).parents[3] / "schemas" / "README.md").read_text()
    of_replies = page.partition("## A reply")[2].partition("## Headers")[0]
    told = re.findall(r"^\| `(\w+)` \|", of_replies, re.MULTILINE)
    assert set(told) == set(outcome.timing)
    assert all(f"`{name}`" in described for name in outcome.timing)


def test_each_pass_is_watched_and_nothing_is_left_armed() -> None:
    bench = Bench(failing(ValueError()))
    bench.run(make_item(0), make_item(1))
    assert bench.dog.seen == ["armed", "off"] * 3


def test_a_pass_is_watched_while_it_runs() -> None:
    seen: list[list[str]] = []
    bench = Bench(Answering(lambda _rows: seen.append(list(bench.dog.seen))))
    bench.run(make_item(0))
    assert seen == [["armed"]]


def test_loading_and_warming_up_are_not_watched() -> None:
    bench = Bench(Answering())
    bench.instance.load()
    bench.instance.warm_up(lambda _model: ["sample"], [1, 2], 1)
    assert bench.metric("warmup_passes_total") == 2
    assert bench.dog.seen == []


class Settling(Answering):
    """Says its precision once it is tuned."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(lambda rows: self.done.append(("pass", list(rows))))
        self.done: list[tuple[str, list[Any]]] = []
        self._error = error

    def tune(self, rows: Sequence[Any]) -> None:
        if self._error is not None:
            raise self._error
        self.done.append(("tune", list(rows)))
        self.precision = "bfloat16"


@pytest.mark.parametrize(("count", "rows"), [(1, ["sample"]), (0, [])], ids=["warm-up", "no warm-up"])
def test_a_model_is_tuned_by_the_rows_of_the_warm_up_before_it(count: int, rows: list[Any]) -> None:
    model = Settling()
    Bench(model).instance.warm_up(lambda _model: ["sample"], [1], count)
    assert model.done == [("tune", rows), *([("pass", rows)] if count else [])]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(ValueError("no kernel"), ModelUnavailable, id="any"),
        pytest.param(FatalError("no licence"), FatalError, id="the model's own word"),
    ],
)
def test_a_model_that_cannot_be_tuned_is_unavailable(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=str(error)):
        Bench(Settling(error)).instance.warm_up(lambda _model: [], [1], 1)


def test_every_result_says_the_precision_that_was_settled() -> None:
    bench = Bench(Settling())
    bench.instance.warm_up(lambda _model: [], [1], 1)
    outcomes = bench.run(make_item(0), make_item(1))
    assert [outcome.dtype for outcome in outcomes.values() if isinstance(outcome, Success)] == ["bfloat16"] * 2


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="python"),
        pytest.param(OutOfMemory("the card is full"), id="the model's own word"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory"), id="torch in a model of one's own"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_counted(error: Exception) -> None:
    def on_pass(rows: Sequence[Any]) -> None:
        if len(rows) > 2:
            raise error

    bench = Bench(Answering(on_pass))
    assert set(codes(bench.run(*(make_item(offset) for offset in range(8)))).values()) == {None}
    assert bench.metric("oom_total") == 2
    assert bench.metric("passes_failed_total") == 2


def test_failures_of_one_batch_have_each_its_own_code() -> None:
    def on_pass(rows: Sequence[Any]) -> None:
        if "0.0" in rows:
            raise MemoryError
        if "1.0" in rows:
            raise KeyError("no such label")

    bench = Bench(Answering(on_pass), ttl_s=60.0)
    items = [make_item(offset, timestamp_s=900.0 if offset == 2 else 999.0) for offset in range(4)]
    outcomes = bench.run(*items)
    assert codes(outcomes) == {0: Code.OUT_OF_MEMORY, 1: Code.MODEL_ERROR, 2: Code.EXPIRED, 3: None}


@pytest.mark.parametrize("outputs", [{"logits": [0.5]}, "x", b"x"], ids=["a mapping", "text", "bytes"])
def test_outputs_that_are_no_list_are_told_by_their_kind(outputs: Any) -> None:
    class Odd(Answering):
        def forward(self, batch: Sequence[Any]) -> Any:
            return outputs

    bench = Bench(Odd(lambda _: None))
    with pytest.raises(ModelUnavailable, match=f"gave a {type(outputs).__name__}; expected one output per row"):
        bench.instance.warm_up(lambda _: ["a row"], [1], 1)


def test_an_expired_item_costs_no_row_of_a_pass() -> None:
    passes: list[int] = []
    bench = Bench(Answering(lambda rows: passes.append(len(rows))), ttl_s=10.0)
    outcomes = bench.run(*(make_item(offset, timestamp_s=980.0 if offset < 3 else 995.0) for offset in range(5)))
    assert codes(outcomes) == {0: Code.EXPIRED, 1: Code.EXPIRED, 2: Code.EXPIRED, 3: None, 4: None}
    assert passes == [2]
    assert {outcome.stage for outcome in outcomes.values() if isinstance(outcome, Fault)} == {"window"}


@pytest.mark.parametrize("deadline_s", [0.0, 999.0], ids=str)
def test_a_request_that_waited_past_its_own_deadline_is_not_run(deadline_s: float) -> None:
    bench = Bench(Answering(lambda _: None))
    late, early = make_item(0), make_item(1)
    late.envelope = late.envelope._replace(deadline_s=deadline_s)
    assert codes(bench.run(late, early)) == {0: Code.EXPIRED, 1: None}


def test_a_transient_error_is_tried_again_and_counted() -> None:
    left = [ConnectionResetError(), TransientError("busy")]

    def on_pass(_rows: Sequence[Any]) -> None:
        if left:
            raise left.pop()

    bench = Bench(Answering(on_pass), attempts=3)
    assert codes(bench.run(make_item(0))) == {0: None}
    assert bench.metric("retries_total") == 2


def test_a_line_for_each_batch_is_written_at_debug_alone() -> None:
    with structlog.testing.capture_logs() as logs:
        Bench(Answering()).run(make_item(0), make_item(1))
    assert [(line["log_level"], line["requests"]) for line in logs if line["action"] == "batch_done"] == [("debug", 2)]


def test_neither_a_retry_nor_a_failure_is_logged_with_the_words_of_the_exception() -> None:
    with structlog.testing.capture_logs() as logs:
        Bench(failing(TransientError("no answer for 'a private text'")), attempts=2).run(make_item(1))
    assert [line["action"] for line in logs if "exception" in line] == ["pass_retried", "request_failed"]
    assert all("TransientError" in line["exception"] for line in logs if "exception" in line)
    assert "private" not in str(logs)


def test_a_fault_counts_the_attempts_that_it_took() -> None:
    outcomes = Bench(failing(TransientError("busy")), attempts=3).run(make_item(0), make_item(1))
    assert [outcome.attempts for outcome in outcomes.values() if isinstance(outcome, Fault)] == [3]


@pytest.mark.parametrize(
    ("detail", "said"), [("none", False), ("message", False), ("traceback", True)], ids=["none", "message", "traceback"]
)
def test_the_words_of_an_exception_reach_the_client_only_when_all_is_told(detail: Detail, said: bool) -> None:
    outcomes = Bench(failing(ValueError("/srv/key.pem")), detail=detail).run(make_item(1))
    (fault,) = outcomes.values()
    assert isinstance(fault, Fault)
    assert ("/srv/key.pem" in fault.message) is said


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(FatalError("the licence has run out"), FatalError, id="the model's own word"),
        pytest.param(RuntimeError("CUDA error: device-side assert triggered"), DeviceLost, id="the device is lost"),
    ],
)
def test_a_fatal_error_answers_nobody(error: Exception, kind: type[Exception]) -> None:
    bench = Bench(failing(error))
    with pytest.raises(kind):
        bench.run(make_item(0), make_item(1))
    assert bench.published == []
    assert bench.dog.seen == ["armed", "off"]


def test_when_nearly_all_fail_the_worker_ends_before_a_batch_of_theirs_is_answered() -> None:
    def fail(_rows: Sequence[Any]) -> None:
        raise ValueError("weights are gone")

    bench = Bench(Answering(fail))
    with pytest.raises(ModelFails):
        bench.run(*(make_item(offset) for offset in range(8)))
    assert bench.published == []


class Sampled(Model):
    """Eight rows are as good as more; it counts what it is given."""

    def __init__(self, clock: ManualClock, file: Path | None = None, rows: Sequence[Any] = ("a", "b")) -> None:
        self.clock = clock
        self.passes: list[int] = []
        self._file = file
        self._rows = rows

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return [InvalidRequest("bad") if row == "bad" else row for row in rows]

    def forward(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.passes.append(len(batch))
        self.clock.advance(0.001 * max(8, len(batch)))
        return batch

    def samples(self) -> Sequence[Any]:
        return self._rows

    def profile_file(self) -> Path | None:
        return self._file


def test_a_profile_finds_the_size_kept_for_the_next_start(tmp_path: Path) -> None:
    for measures in (True, False):
        bench = Bench(Answering())
        bench.instance._model = model = Sampled(bench.clock, tmp_path / "kept.json")
        assert bench.instance.profile(lambda model: model.samples(), 64, None) == Sizes(8)
        assert bool(model.passes) is measures
    assert bench.instance.profile(lambda model: model.samples(), 4, None) == Sizes(4)  # kept for other bounds


@pytest.mark.parametrize(
    ("kept", "max_cost"),
    [
        pytest.param({"max_rows": 65, "max_cost": None}, None, id="more rows than fit into the worker"),
        pytest.param({"max_rows": 8, "max_cost": None}, 32, id="the configured cost dropped"),
    ],
)
def test_a_kept_profile_beyond_the_bounds_is_measured_anew(
    tmp_path: Path, kept: Mapping[str, int | None], max_cost: int | None
) -> None:
    file = tmp_path / "kept.json"
    bench = Bench(Answering())
    bench.instance._model = model = Sampled(bench.clock, file)
    found = bench.instance.profile(lambda model: model.samples(), 64, max_cost)
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: kept}))
    model.passes.clear()
    assert bench.instance.profile(lambda model: model.samples(), 64, max_cost) == found
    assert model.passes


class Stacking(Sampled):
    """Its `preprocess` needs a row, and rows of one length, as stacking them does."""

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        if len({len(row) for row in rows}) != 1:
            raise ValueError("need at least one array to stack, all of one shape")
        return rows


def test_a_model_without_samples_has_no_profile_and_is_not_asked_to_prepare_none() -> None:
    bench = Bench(Answering())
    bench.instance._model = Stacking(bench.clock, rows=())
    assert bench.instance.profile(lambda model: model.samples(), 64, None) is None


def test_samples_of_unlike_shapes_are_prepared_one_by_one() -> None:
    bench = Bench(Answering())
    bench.instance._model = Stacking(bench.clock, rows=("a", "bb"))
    assert bench.instance.profile(lambda model: model.samples(), 64, None) == Sizes(8)


def test_what_cannot_be_profiled_says_why() -> None:
    bench = Bench(Answering())
    bench.instance._model = model = Sampled(bench.clock)
    model.cost = lambda row: len(row[5])  # type: ignore[method-assign]
    with pytest.raises(ModelUnavailable, match="samples cannot be profiled on cpu: string index out of range"):
        bench.instance.profile(lambda model: model.samples(), 64, None)


def test_rows_that_are_refused_are_no_samples() -> None:
    bench = Bench(Answering())
    bench.instance._model = model = Sampled(bench.clock, rows=["bad", "bad"])
    assert bench.instance.profile(lambda model: model.samples(), 64, None) is None
    assert model.passes == []


@pytest.mark.parametrize(
    ("rows", "search", "bounds"),
    [
        pytest.param(["a"], Search(64, None), (8, 0), id="found"),
        pytest.param(["a"], None, (32, 0), id="not sought"),
        pytest.param([], Search(64, None), (32, 0), id="nothing to profile"),
    ],
)
def test_the_sizes_that_are_found_bound_the_window_before_anything_is_served(
    rows: list[Any], search: Search | None, bounds: tuple[float, float]
) -> None:
    bench = Bench(Answering())
    bench.metrics.bounded(32, None)
    bench.instance._model = Sampled(bench.clock, rows=rows)
    failure = Failure()
    instances = Instances(
        [bench.instance], bench.feed, lambda model: model.samples(), [1], 1, bench.metrics, failure, search
    )
    with instances:
        assert instances.wait_ready(lambda: failure.happened)
        assert (bench.metric("max_batch_size"), bench.metric("max_batch_cost")) == bounds
        assert bench.feed._window._rules.max_rows == bounds[0]


class Profiled(Instance):
    """Says when it profiles."""

    profiles: threading.Event

    def profile(self, *_: Any) -> Sizes | None:
        self.profiles.set()
        return None


class Slow(Answering):
    """Is warm only when nobody has profiled for a while."""

    def __init__(self, profiles: threading.Event) -> None:
        super().__init__()
        self.early = False
        self._profiles = profiles

    def tune(self, rows: Sequence[Any]) -> None:
        self.early = self._profiles.wait(0.2)


def test_one_instance_profiles_when_all_are_warm() -> None:
    event = threading.Event()
    slow = Slow(event)
    first, second = Bench(Answering()), Bench(slow)
    for bench in (first, second):
        bench.instance.__class__ = Profiled
        bench.instance.profiles = event  # type: ignore[attr-defined]
    second.instance._feed = first.feed
    failure = Failure()
    instances = together(failure, first, second)
    with instances:
        assert instances.wait_ready(lambda: failure.happened)
    assert event.is_set()
    assert not slow.early


def together(failure: Failure, *benches: Bench) -> Instances:
    feed, metrics = benches[0].feed, benches[0].metrics
    members = [bench.instance for bench in benches]
    return Instances(members, feed, Model.samples, [1], 1, metrics, failure, Search(64, None))


def test_the_others_do_not_wait_for_one_that_cannot_be_loaded() -> None:
    bench, other = Bench(Answering()), Bench(Settling(ValueError("no kernel")))
    failure = Failure()
    instances = together(failure, bench, other)
    with pytest.raises(ModelUnavailable, match="no kernel"):
        with instances:
            instances.wait_ready(lambda: False)
    for thread in instances._threads:
        thread.join(10)
        assert not thread.is_alive()


class Packs(Answering):
    """Packs, which shows once it is loaded; says that a fifth of each batch is padding."""

    def load(self, device: str) -> None:
        self.packing = "tightly"

    def padding(self, batch: Any) -> float | None:
        return 0.2


def test_a_model_that_packs_once_loaded_is_given_rows_by_the_sum_of_their_costs() -> None:
    bench = Bench(Packs(), rules=Rules(max_rows=32, max_cost=110))
    bench.instance.load()
    bench.feed.pack()
    assert bench.metrics.registry.get_sample_value("forebay_packing", {"scheme": "tightly"}) == 1
    bench.run(make_item(0, cost=100), make_item(1, cost=9), make_item(2, cost=1))
    assert bench.metric("batch_cost_sum") == 110
    assert (bench.metric("padding_ratio_sum"), bench.metric("padding_ratio_count")) == (0.2, 1)


@pytest.mark.parametrize("models", [[Packs], [Packs, Packs], [Packs, Answering], [Answering]], ids=str)
def test_batches_are_of_packed_rows_where_every_copy_of_the_model_packs(models: Sequence[type[Model]]) -> None:
    """One whose device was short of memory for the trial may not, and pads what would be far too much for it."""
    benches = [Bench(model()) for model in models]
    failure = Failure()
    with together(failure, *benches) as instances:
        assert instances.wait_ready(lambda: failure.happened)
        assert benches[0].feed._window._packs is all(model is Packs for model in models)
        for bench in benches:
            bench.feed.close()


def test_memory_that_a_packed_batch_lacked_is_remembered_as_a_sum() -> None:
    def not_the_first_in_company(rows: Sequence[Any]) -> None:
        if len(rows) > 1 and "0.0" in rows:
            raise OutOfMemory("full")

    bench = Bench(Packs(not_the_first_in_company))
    bench.instance.load()
    outcomes = bench.run(make_item(0, cost=100), make_item(1, cost=1), make_item(2, cost=2))
    assert codes(outcomes) == {0: None, 1: None, 2: None}
    assert bench.metric("oom_total") == 1, "the first half is the first alone, by its cost"


def test_a_model_that_neither_packs_nor_pads_says_so() -> None:
    model = Answering()
    model.unpacked = "equal-lengths"
    bench = Bench(model)
    bench.instance.load()
    assert bench.metrics.registry.get_sample_value("forebay_packing", {"scheme": "equal-lengths"}) == 1
    bench.run(make_item(0, cost=100), make_item(1, cost=9))
    assert bench.metric("padding_ratio_count") == 0, "the costs do not tell it"


class Counts(Answering):
    """Pads, and says how much, since the costs of its rows do not."""

    def padding(self, batch: Any) -> float | None:
        return 0.2


class Miscounts(Answering):
    def padding(self, batch: Any) -> float | None:
        raise ZeroDivisionError


@pytest.mark.parametrize(("model", "padding"), [(Answering, 0.25), (Counts, 0.2), (Miscounts, 0.25)])
def test_a_model_that_pads_says_so(model: type[Model], padding: float) -> None:
    bench = Bench(model())
    bench.instance.load()
    assert bench.metrics.registry.get_sample_value("forebay_packing", {"scheme": "none"}) == 1
    assert codes(bench.run(make_item(0, cost=100), make_item(1, cost=50))) == {0: None, 1: None}
    assert bench.metric("batch_cost_sum") == 200
    assert (bench.metric("padding_ratio_sum"), bench.metric("padding_ratio_count")) == (padding, 1)


def test_a_buffer_that_the_next_pass_writes_to_changes_no_answer() -> None:
    """Answers are written out by another thread, while that pass runs."""

    class Reusing(Answering):
        out = np.zeros(4)

        def forward(self, batch: Sequence[Any]) -> Any:
            self.out[: len(batch)] = [float(row) for row in batch]
            return self.out[: len(batch)]

    bench = Bench(Reusing(), rules=Rules(max_rows=2))

    def publish(outcomes: Sequence[Outcome]) -> None:
        bench.published += outcomes
        if len(bench.published) == 4:
            bench.feed.close()

    bench.instance._publish = publish
    bench.feed.put([make_item(offset) for offset in range(4)])
    bench.feed.drain()
    bench.instance.serve()
    assert [[*outcome.outputs] for outcome in bench.published if isinstance(outcome, Success)] == [[0], [1], [2], [3]]


def test_what_a_model_takes_out_of_the_parameters_stays_in_those_of_the_others() -> None:
    class Pops(Answering):
        def postprocess(self, output: Any, rows: Sequence[Any], parameters: Any) -> Sequence[Any]:
            return [parameters.pop("k")] * len(rows)

    bench = Bench(Pops())
    item = make_item(0)
    item = replace(item, parameters={"k": 3})
    bench.run(item)
    assert item.parameters == {"k": 3}


@pytest.mark.parametrize("output", [{1, 2}, b"bytes", object()])
def test_a_model_whose_output_is_no_json_does_not_start(output: Any) -> None:
    class Odd(Answering):
        def postprocess(self, output_: Any, rows: Sequence[Any], parameters: Any) -> Sequence[Any]:
            return [output] * len(rows)

    with pytest.raises(ModelUnavailable, match=r"the warm-up failed on cpu: .*JSON serializable"):
        Bench(Odd()).instance.warm_up(lambda _: ["a"], [1], 1)


def test_what_a_model_gives_one_by_one_is_taken_in_the_warm_up_too() -> None:
    class Yields(Answering):
        def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Any:
            yield from rows

    bench = Bench(Yields())
    bench.instance.warm_up(lambda _: (row for row in ["a", "b"]), [1, 2], 1)  # type: ignore[arg-type, return-value]
    assert bench.metric("warmup_passes_total") == 4


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(ValueError, id="of the model"),
        pytest.param(OutOfMemory, id="memory"),
        pytest.param(TransientError, id="of the moment"),
    ],
)
def test_a_failed_pass_leaves_nothing_for_the_collector(kind: type[Exception]) -> None:
    """It looks seldom while a worker runs, and in its cycles the rows of whole batches would wait."""

    def on_pass(rows: Sequence[Any]) -> None:
        if "1.0" in rows:
            raise kind("no")

    bench = Bench(Answering(on_pass), attempts=2)
    row = _Row("1.0")
    seen = weakref.ref(row)
    items = [make_item(0), make_item(1, prepared=[row]), make_item(2)]
    del row
    gc.collect()
    gc.disable()
    try:
        assert list(codes(bench.run(*items)).values()).count(None) == 2
        bench.published.clear()
        items.clear()
        assert seen() is None
    finally:
        gc.enable()
