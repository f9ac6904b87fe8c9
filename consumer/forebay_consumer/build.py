"""Builds a worker from its settings; the only place that knows all parts by their constructors."""

import os
import socket
from collections.abc import Sequence
from typing import Any

import forebay_schemas as schemas
from forebay_consumer.allocator import keep_memory
from forebay_consumer.breaker import Breaker
from forebay_consumer.by_lock import by_lock
from forebay_consumer.by_offset import by_offset
from forebay_consumer.config import ModelSettings, RetrySettings, WarmupSettings, WorkerSettings
from forebay_consumer.errors import BadConfig
from forebay_consumer.existing import Existing, Outlets
from forebay_consumer.expiry import Expiry
from forebay_consumer.failure import Failure
from forebay_consumer.flow import Flow
from forebay_consumer.health import Health, HealthServer
from forebay_consumer.instance import Instance, Instances, Search
from forebay_consumer.messages import Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.model import Model
from forebay_consumer.models.registry import model_class, unknown_option
from forebay_consumer.pace import Pace
from forebay_consumer.pause import Pause
from forebay_consumer.preprocess import Preprocess, Preprocessor
from forebay_consumer.retries import Retries
from forebay_consumer.roles import Setting
from forebay_consumer.routes import Routes
from forebay_consumer.shutdown import Shutdown
from forebay_consumer.watchdog import Alarm, Watchdog
from forebay_consumer.window import Rules
from forebay_consumer.worker import Worker
from forebay_schemas import RequestError
from forebay_schemas.request import read_row


def placements(settings: ModelSettings, model: type[Model]) -> list[str]:
    """The device of every instance, in order: each group's devices, `count` times each."""
    return [
        device
        for group in settings.instance_group
        for device in (group.devices or model.default_devices())
        for _ in range(group.count)
    ]


def make_models(settings: ModelSettings) -> list[tuple[str, Model]]:
    """One model object per instance, with its device; nothing is loaded yet.

    From here on the process keeps what passes free, see `allocator`.

    Raises:
        BadConfig: the class or task cannot be had, or does not take the options.
    """
    keep_memory()
    cls = model_class(settings.task, settings.class_)
    options = dict(settings.options)
    if settings.path is not None:
        options["path"] = settings.path
    try:
        return [(device, cls(**options)) for device in placements(settings, cls)]
    except TypeError as error:
        raise BadConfig(f"model.options: {unknown_option(cls, options) or error}") from error


def warmup_rows(settings: WarmupSettings, model: Model) -> Sequence[Any]:
    """The configured rows, else the model's own samples.

    Raises:
        BadConfig: a file cannot be read, or is no UTF-8 though it is a text, or a sample is no row of a request.
    """
    rows = [_sample(value, position) for position, value in enumerate(settings.samples)]
    for file in settings.files:
        try:
            rows.append(file.read_text("utf-8") if file.suffix == ".txt" else file.read_bytes())
        except OSError as error:
            raise BadConfig(f"model.warmup.files: {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BadConfig(f"model.warmup.files: {file}: not UTF-8 text (byte {error.start})") from error
    return rows or model.samples()


def _sample(value: Any, position: int) -> Any:
    """A row as the model would get it from a request."""
    try:
        return read_row(value, f"model.warmup.samples[{position}]")
    except RequestError as error:
        raise BadConfig(str(error)) from error


def _retries(settings: RetrySettings, failure: Failure, shutdown: Shutdown) -> Retries:
    return Retries(
        settings.attempts,
        settings.backoff_ms / 1000,
        settings.max_backoff_ms / 1000,
        Pause(failure, shutdown),
    )


def search_of(settings: WorkerSettings, room: int, models: Sequence[Model]) -> Search | None:
    """Within what bounds batch sizes are sought; None where they are configured, or nothing is run before requests.

    Args:
        room: rows inside the worker for each batch that an instance has at once: more could not come together.
    """
    batching = settings.batching
    if batching.max_batch_size is not None or batching.preferred_batch_sizes or not settings.model.warmup.count:
        return None
    most = min([room, *(model.max_batch_size for model in models if model.max_batch_size is not None)])
    return Search(max(1, most), batching.max_batch_cost)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def build(settings: WorkerSettings, shutdown: Shutdown) -> Worker:
    """Make every part of a worker and join them. Opens nothing, loads nothing."""
    batching, limits, delivery = settings.batching, settings.limits, settings.delivery
    served = schemas.Model(settings.model.name, settings.model.version)
    models = make_models(settings.model)
    largest = min([batching.rows, *(m.max_batch_size for _, m in models if m.max_batch_size is not None)])
    # Enough for the window's look-ahead, and for each instance a batch running, one decoding and two publishing.
    in_flight = limits.max_in_flight or (batching.lookahead + 4 * len(models)) * largest

    metrics, failure = Metrics(), Failure()
    metrics.bounded(largest, batching.max_batch_cost)
    flow = Flow(in_flight, limits.max_bytes_in_flight)
    rules = Rules(
        max_rows=largest,
        linger_s=batching.linger_ms / 1000,
        adaptive=batching.adaptive_linger,
        preferred=batching.preferred_batch_sizes,
        max_cost=batching.max_batch_cost,
        lookahead=batching.lookahead,
    )
    routes = Routes(settings.topics.replies)
    origin = {
        "group": str(settings.kafka["group.id"]),
        "worker": f"{socket.gethostname()}-{os.getpid()}",
        "model": served.name,
        "model-version": served.version,
    }
    writer = Writer(routes, settings.topics.dead_letters, served, origin)
    expiry = Expiry(_seconds(limits.request_ttl_ms))
    setting = Setting(settings, rules, expiry, len(models), flow, writer, metrics, failure, shutdown)
    if delivery.mode == "queue":
        mode = by_lock(setting, consumers=delivery.queue.consumers * setting.instances)
    else:
        mode = by_offset(setting, in_flight)
    intake, feed, replies = mode.intake, mode.feed, mode.replies
    alarm = Alarm()
    watchdog = Watchdog(_seconds(limits.forward_timeout_ms), alarm)
    retries = _retries(settings.retry, failure, shutdown)

    def breaker() -> Breaker:
        # Of each copy its own: one that is broken is not to hide among those that are well.
        return Breaker(settings.retry.breaker_window, settings.retry.breaker_share)

    detail = settings.model.error_detail
    instances = Instances(
        [
            Instance(
                number, device, model, feed, replies.publish, metrics, watchdog, retries, breaker(), expiry, detail
            )
            for number, (device, model) in enumerate(models)
        ],
        feed,
        lambda model: warmup_rows(settings.model.warmup, model),
        [min(size, largest) for size in settings.model.warmup.batch_sizes],
        settings.model.warmup.count,
        metrics,
        failure,
        search_of(settings, in_flight // (4 * len(models)), [model for _, model in models]),
    )
    preprocess = Preprocess(
        Preprocessor(
            models[0][1],
            served,
            routes,
            largest,
            limits.max_request_bytes,
            expiry,
            detail,
            Existing(replies.list_topics).has,
            limits.max_backlog,
            lambda record: intake.snapshot.ends.get(record.claim, 0) - record.next_offset,
        ),
        feed,
        flow,
        takes=mode.book.takes,
        publish=replies.publish,
        give_up=mode.endings.give_up,
        metrics=metrics,
        failure=failure,
        threads=limits.preprocess_threads,
        chunk=max(largest, 32),
        watchdog=Watchdog(_seconds(limits.preprocess_timeout_ms), alarm),
    )
    health = Health(stuck_after_s=mode.max_poll_s)
    return Worker(
        intake,
        preprocess,
        feed,
        instances,
        replies,
        mode.book,
        mode.admission,
        mode.settlement,
        mode.endings,
        flow,
        Pace(flow, rules.linger_s, mode.full),
        health,
        HealthServer(settings.metrics, health, metrics.registry),
        metrics,
        failure,
        shutdown,
        mode.max_uncommitted,
        mode.poisoned,
        Outlets(
            {"topics.replies": routes.default, "topics.dead_letters": settings.topics.dead_letters}, replies.list_topics
        ),
    )
