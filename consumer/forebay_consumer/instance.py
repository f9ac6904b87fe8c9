"""One copy of the model on one device, with a thread of its own: collate, forward, postprocess."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import structlog

from forebay_consumer.breaker import Breaker
from forebay_consumer.ceiling import Ceiling
from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.detail import Detail
from forebay_consumer.errors import FatalError, ModelUnavailable, OutOfMemory, WrongLength
from forebay_consumer.expiry import NO_EXPIRY, Expiry
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.frames import forget_frames
from forebay_consumer.logs import where_raised
from forebay_consumer.meaning import translated
from forebay_consumer.metrics import Metrics
from forebay_consumer.model import PADS, Model, costs_of
from forebay_consumer.outcomes import Failed, Settler, split_rows
from forebay_consumer.profile import Sizes, profile
from forebay_consumer.profile_file import Profiles
from forebay_consumer.record import Fault, Item, Outcome, Success
from forebay_consumer.retries import Retries
from forebay_consumer.watchdog import Watchdog
from forebay_consumer.window import Batch
from forebay_schemas import Code, Envelope, result_body
from forebay_schemas import Model as Served


class Instance:
    """Pulls batches and publishes one outcome per record, in order. Its thread is the only one to run the model."""

    def __init__(
        self,
        number: int,
        device: str,
        model: Model,
        feed: Feed,
        publish: Callable[[Sequence[Outcome]], None],
        metrics: Metrics,
        watchdog: Watchdog,
        retries: Retries,
        breaker: Breaker,
        expiry: Expiry = NO_EXPIRY,
        detail: Detail = "message",
        clock: Clock = monotonic,
    ) -> None:
        self._number = number
        self._device = device
        self._model = model
        self._feed = feed
        self._publish = publish
        self._metrics = metrics
        self._watchdog = watchdog
        self._breaker = breaker
        self._clock = clock
        self._taken_s = 0.0  # when the batch that is being settled was pulled
        self._told_padding = self._padding_failed = False
        self._ceiling = Ceiling()
        self._settler = Settler(
            self._run,
            retries,
            self._ceiling,
            lapsed=expiry.among,
            retrying=self._retrying,
            detail=detail,
        )
        self._log = structlog.get_logger().bind(instance=number, device=device)

    def load(self) -> None:
        """Bring the weights to the device.

        Raises:
            ModelUnavailable: whatever the model raised.
        """
        started = self._clock()
        try:
            self._model.load(self._device)
        except FatalError:
            raise
        except Exception as error:
            raise ModelUnavailable(f"the model cannot be loaded on {self._device}: {error}") from error
        if self.packs:
            self._ceiling.pack()
        self._metrics.packing.labels(self._model.packing or self._model.unpacked).inc()
        self._metrics.loads.inc()
        self._log.info("model loaded", action="model_loaded", seconds=round(self._clock() - started, 3))

    @property
    def packs(self) -> bool:
        """Whether the model, which is loaded by now, pads nothing."""
        return self._model.packing is not None

    def warm_up(self, samples: Callable[[Model], Sequence[Any]], batch_sizes: Sequence[int], count: int) -> None:
        """Let the model choose how it runs, then run every sample at every batch size, `count` times.

        Args:
            samples: the rows for this instance's own model, which is loaded by now.
        Raises:
            ModelUnavailable: a sample could not be run, so requests could not either.
        """
        started = self._clock()
        rows = list(samples(self._model)) if count else []
        self._tune(rows)
        for sample in rows:
            for size in batch_sizes:
                try:
                    prepared = list(self._model.preprocess([sample] * size, {}))
                    if bad := next((row for row in prepared if isinstance(row, Exception)), None):
                        raise bad
                    for _ in range(count):
                        outputs, _ = self._pass(prepared, {})
                        _check_json(outputs)
                        self._metrics.warmups.inc()
                except Exception as error:
                    raise ModelUnavailable(f"the warm-up failed on {self._device}: {error}") from error
        self._log.info(
            "warm",
            action="warmed_up",
            samples=len(rows),
            dtype=self._model.precision,
            seconds=round(self._clock() - started, 3),
        )

    def _tune(self, rows: Sequence[Any]) -> None:
        try:
            self._model.tune(rows)
        except FatalError:
            raise
        except Exception as error:
            raise ModelUnavailable(f"the model cannot be tuned on {self._device}: {error}") from error

    def profile(self, samples: Callable[[Model], Sequence[Any]], most: int, max_cost: int | None) -> Sizes | None:
        """The best sizes of a batch, as kept or as measured now; None where there is nothing to measure.

        Args:
            samples: as for `warm_up`, after it.
            most: rows that a batch may have.
            max_cost: what it may cost, where that is not to be found.
        """
        started = self._clock()
        try:  # each alone, as in the warm-up: samples need not fit into one call, nor need there be any
            prepared = [row for sample in samples(self._model) for row in self._model.preprocess([sample], {})]
            fit = [row for row in prepared if not isinstance(row, Exception)]
            rows = list(zip(fit, costs_of(self._model, fit), strict=True))
        except Exception as error:
            raise ModelUnavailable(f"the model's samples cannot be profiled on {self._device}: {error}") from error
        if not rows:
            return None
        profiles = Profiles(self._model.profile_file())
        packs = self._model.packing is not None
        key = f"{self._model.profile_key()} {most} {max_cost} {sorted(cost for _, cost in rows)}{' mixed' * packs}"
        kept = profiles.find(key)
        if kept and (kept.max_rows > most or (max_cost is not None and kept.max_cost != max_cost)):
            kept = None  # no profile within these bounds says so
        found, sweeps = (kept, ()) if kept else profile(rows, most, max_cost, self._try, self._clock, packs)
        if found and not kept:
            profiles.keep(key, found)
        self._log.info(
            "profiled",
            action="profiled",
            kept=kept is not None,
            max_batch_size=found and found.max_rows,
            max_batch_cost=found and found.max_cost,
            rows_per_s={sweep.cost: {size: round(rate, 1) for size, rate in sweep.rates.items()} for sweep in sweeps},
            seconds=round(self._clock() - started, 3),
        )
        return found

    def _try(self, rows: Sequence[Any]) -> None:
        with translated():
            self._model.postprocess(self._model.forward(self._model.collate(rows)), rows, {})

    def serve(self) -> None:
        """Run batches until the feed closes."""
        while (batch := self._feed.pull()) is not None:
            self._taken_s = taken = self._clock()
            self._metrics.batch_taken(batch, taken)
            self._told_padding = False
            outcomes = self._settle(batch)
            if self._pads and not self._told_padding:
                self._metrics.padded(batch)
            self._breaker.check(outcomes)
            self._publish(outcomes)
            failed = sum([isinstance(outcome, Fault) for outcome in outcomes])
            if not failed:
                self._feed.ran(batch, self._clock() - taken)
            self._log.debug(
                "batch done",
                action="batch_done",
                requests=len(batch.items),
                rows=batch.rows,
                cost=batch.padded_cost,
                trigger=batch.trigger.value,
                linger_ms=_ms(taken - batch.items[0].ready_s),
                run_ms=_ms(self._clock() - taken),
                failed=failed,
            )

    def _settle(self, batch: Batch) -> list[Outcome]:
        settled = self._settler.settle(batch.items)
        return [
            self._fault(item, outcome) if isinstance(outcome, Failed) else outcome
            for item, outcome in zip(batch.items, settled, strict=True)
        ]

    def _run(self, items: Sequence[Item]) -> list[Success]:
        """One watched pass; what the model raises comes out as what it means."""
        rows = [row for item in items for row in item.rows]
        self._watchdog.arm(self._number)
        try:
            with translated():
                outputs, forward_s = self._pass(rows, dict(items[0].parameters))
        except Exception as error:
            self._metrics.passes_failed.inc()
            self._metrics.oom.inc(isinstance(error, OutOfMemory))
            raise
        finally:
            self._watchdog.disarm(self._number)
        outputs = _own(outputs)
        forward_ms, size = _ms(forward_s), len(rows)
        precision = self._model.precision
        queue_s: float | None = -1.0
        preprocess_s = ready_s = -1.0
        timing: dict[str, float] = {}
        successes = []
        for item, share in zip(items, split_rows(outputs, items), strict=True):
            record = item.record
            # Those of one chunk with the same timestamp share their times, and with them the object: see `Writer`.
            if item.ready_s != ready_s or record.queue_s != queue_s or item.preprocess_s != preprocess_s:
                queue_s, preprocess_s, ready_s = record.queue_s, item.preprocess_s, item.ready_s
                timing = {
                    "queue_ms": _ms(queue_s or 0.0),
                    "preprocess_ms": _ms(preprocess_s),
                    "linger_ms": _ms(self._taken_s - ready_s),
                    "forward_ms": forward_ms,
                    "batch_size": size,
                }
            successes.append(Success(record, item.envelope, share, timing, precision))
        return successes

    @property
    def _pads(self) -> bool:
        return self._model.packing is None and self._model.unpacked == PADS

    def _pass(self, rows: Sequence[Any], parameters: Any) -> tuple[Sequence[Any], float]:
        """One forward pass: the outputs, one per row, and the seconds that `forward` took."""
        started = self._clock()
        batch = self._model.collate(rows)
        collated = self._clock()
        output = self._model.forward(batch)
        forwarded = self._clock()
        outputs = self._model.postprocess(output, rows, parameters)
        finished = self._clock()
        if isinstance(outputs, (Mapping, str, bytes)):  # as of transformers' outputs, which have a length
            raise TypeError(f"the model gave a {type(outputs).__name__}; expected one output per row, in order")
        if len(outputs) != len(rows):
            raise WrongLength(len(rows), len(outputs))
        self._tell_padding(batch)
        self._metrics.collate.observe(collated - started)
        self._metrics.forward.observe(forwarded - collated)
        self._metrics.postprocess.observe(finished - forwarded)
        return outputs, forwarded - collated

    def _tell_padding(self, batch: Any) -> None:
        try:
            padding = self._model.padding(batch)
        except Exception as error:  # no request's fault, nor a reason to run it again
            if not self._padding_failed:
                self._log.error("padding() raised", action="padding_failed", exception=where_raised(error))
            self._padding_failed = True
            return
        if padding is not None:
            self._told_padding = True
            self._metrics.padding.observe(padding)

    def _retrying(self, error: Exception, attempt: int) -> None:
        self._metrics.retries.inc()
        told = where_raised(error)
        self._log.warning("pass failed, to be tried again", action="pass_retried", attempt=attempt, exception=told)

    def _fault(self, item: Item, failed: Failed) -> Fault:
        if failed.code is Code.EXPIRED:
            return Fault(item.record, item.envelope, failed.code, str(failed), "window", failed.attempts)
        self._log.warning(
            "request failed in the model",
            action="request_failed",
            request=item.envelope.id,
            code=failed.code.value,
            attempts=failed.attempts,
            exception=where_raised(failed.__cause__),
        )
        forget_frames(failed.__cause__)
        return Fault(item.record, item.envelope, failed.code, str(failed), "forward", failed.attempts)


@dataclass(frozen=True, slots=True)
class Search:
    """Within what bounds the best sizes of a batch are sought.

    Attributes:
        most: rows that a batch may have.
        max_cost: what it may cost, where that is not sought.
    """

    most: int
    max_cost: int | None


class Instances:
    """All instances of a worker, each on its thread; a context manager.

    Args:
        search: None leaves the window's rules as they are.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        feed: Feed,
        samples: Callable[[Model], Sequence[Any]],
        batch_sizes: Sequence[int],
        warmup_count: int,
        metrics: Metrics,
        failure: Failure,
        search: Search | None = None,
    ) -> None:
        self._instances = instances
        self._feed = feed
        self._samples = samples
        self._batch_sizes = batch_sizes
        self._warmup_count = warmup_count
        self._metrics = metrics
        self._failure = failure
        self._search = search
        self._loading = len(instances)
        self._loaded_one = threading.Lock()
        self._ready = threading.Semaphore(0)
        self._all_ready = False
        self._warm = threading.Barrier(len(instances))  # broken at the end, if one is still waited for then
        self._threads = [
            threading.Thread(target=failure.guard(self._life(instance), "instance"), name=f"instance-{n}", daemon=True)
            for n, instance in enumerate(instances)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._feed.close()
        self._warm.abort()
        if kind is None and self._all_ready:  # a load takes its time, and holds nothing of anybody's
            for thread in self._threads:
                thread.join()

    def wait_ready(self, give_up: Callable[[], bool]) -> bool:
        """Block until all are loaded and warm; False when `give_up` says to stop waiting.

        Raises:
            FatalError: one of them could not be loaded.
        """
        missing = len(self._instances)
        while missing:
            if self._ready.acquire(timeout=0.1):
                missing -= 1
            self._failure.check()
            if give_up():
                return False
        self._all_ready = True
        return True

    def _life(self, instance: Instance) -> Callable[[], None]:
        def live() -> None:
            instance.load()
            self._loaded()
            instance.warm_up(self._samples, self._batch_sizes, self._warmup_count)
            self._metrics.instances.inc()
            if self._search is not None:
                self._settle_sizes(instance, self._search)
            self._ready.release()
            instance.serve()

        return live

    def _loaded(self) -> None:
        """With the last of them: tell the window, if all pack. One whose device was short of memory may not."""
        with self._loaded_one:
            self._loading -= 1
            if not self._loading and all(instance.packs for instance in self._instances):
                self._feed.pack()

    def _settle_sizes(self, instance: Instance, search: Search) -> None:
        """The first measures for all, when none of the others still loads, which would slow it down."""
        try:
            self._warm.wait()
        except threading.BrokenBarrierError:  # the worker ends
            return
        if instance is not self._instances[0]:
            return
        found = instance.profile(self._samples, search.most, search.max_cost)
        if found is not None:
            self._feed.bound(found.max_rows, found.max_cost)
            self._metrics.bounded(found.max_rows, found.max_cost)


def _check_json(outputs: Sequence[Any]) -> None:
    """Raises TypeError where no reply could be written of these."""
    result_body(Envelope("warm-up"), Served("warm-up", ""), list(outputs), {})


def _own(outputs: Any) -> Any:
    """A numpy array may be a buffer that the next pass writes to, and answers are written out while that runs."""
    return outputs.copy() if hasattr(type(outputs), "__array_interface__") else outputs


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
