"""The worker's settings: one YAML file, environment variables over it, `--set` flags over both.

Every part has its own frozen model; unknown keys are errors. Secrets in files are named here and read by `credentials`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from forebay_consumer.credentials import is_secret_file
from forebay_consumer.errors import BadConfig
from forebay_consumer.routes import is_topic_name
from forebay_consumer.sources import (
    PREFIX,
    Environment,
    OneSpelling,
    check_variables,
    delivery_mode,
    flatten_kafka,
    parse_flags,
    part_of,
    read_file,
)

REFUSED: Final = {
    "enable.auto.commit": "offsets are committed only after the replies are confirmed",
    "enable.auto.offset.store": "offsets are committed only after the replies are confirmed",
    "auto.offset.reset": "say delivery.start: earliest, latest or fail; a truncated log is never jumped silently",
    "acks": "a reply counts as written only when all in-sync replicas have it",
    "request.required.acks": "a reply counts as written only when all in-sync replicas have it",
    "enable.idempotence": "replies must not be repeated by the client's own retries",
    "transactional.id": "exactly-once is a delivery mode, not a client setting",
    "delivery.report.only.error": "a request is done when its reply is reported delivered",
    "enable.partition.eof": "the worker reads positions itself",
}
ALLOWED: Final = {
    "partition.assignment.strategy": (
        ("cooperative-sticky",),
        "the others stop every partition of the group at each change",
    ),
    "group.protocol": (("classic", "consumer"), "a share group is delivery.mode queue"),
}
"""Settings that have fewer values than librdkafka knows, and why."""
COMMITTED_ONLY: Final = (
    "requests of aborted transactions were never sent, and an offset that is not committed yet is no place to begin"
)
_BROKERS: Final = "in a share group it is the broker's: group.share.* of the broker, share.* of the group"
_NO_SUCH: Final = "a share group has nothing of the kind"
REFUSED_BY_QUEUE: Final = {
    "share.acknowledgement.mode": "a request is acknowledged only after its reply is confirmed",
    "isolation.level": "the worker sets the group to share.isolation.level=read_committed",
    "statistics.interval.ms": "the worker reads the statistics to know whether it has joined",
    "session.timeout.ms": _BROKERS,
    "heartbeat.interval.ms": _BROKERS,
    "group.remote.assignor": _BROKERS,
    "partition.assignment.strategy": _BROKERS,
    "group.protocol": _NO_SUCH,
    "group.protocol.type": _NO_SUCH,
    "group.instance.id": _NO_SUCH,
    "queued.min.messages": "a share consumer fetches nothing ahead",
    "queued.max.messages.kbytes": "a share consumer fetches nothing ahead",
    "fetch.error.backoff.ms": _NO_SUCH,
    "fetch.queue.backoff.ms": _NO_SUCH,
    "consume.callback.max.messages": _NO_SUCH,
    "allow.auto.create.topics": "create the request topics before",
}
"""Settings that librdkafka's share consumer does not take, or that are ours."""
_SECRET: Final = re.compile(
    r"password|passphrase|secret|\.key\.pem|sasl\.jaas|sasl\.oauthbearer\.config|token", re.IGNORECASE
)
_SECRET_WORD: Final = re.compile(
    r"(^|[._-])(password|passphrase|secret|token|(api_?)?key|credentials?)($|[._-])", re.IGNORECASE
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # within accessKey


_Settings = TypeVar("_Settings", bound="Layered")


class Part(BaseModel):
    """A part of the settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _check_kafka(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("expected a mapping of librdkafka's keys and values, as in {bootstrap.servers: host:9092}")
    _check_entries(value)
    for key, reason in REFUSED.items():
        if key in value:
            raise ValueError(f"{key} may not be set: {reason}")
    for key in ("bootstrap.servers", "group.id"):
        if not value.get(key):
            raise ValueError(f"{key} is missing; the worker cannot start without it")
    for key, (allowed, reason) in ALLOWED.items():
        if key in value and value[key] not in allowed:
            told = " and ".join(map(repr, allowed))
            raise ValueError(f"{key}={value[key]!r}: allowed {'are' if allowed[1:] else 'is'} {told}; {reason}")
    _check_credentials(value)
    return value


def _check_entries(kafka: Mapping[str, Any]) -> None:
    """A list's entries are not told, as in `_check_credentials`."""
    for key, value in kafka.items():
        if not isinstance(value, str | int | float | bool) and not _SECRET.search(key):
            found = "nothing" if value is None else type(value).__name__
            raise ValueError(f"{key}: expected text, a number, true or false; got {found}")


def _check_credentials(kafka: Mapping[str, Any]) -> None:
    """No value is told here: it may be the secret itself in the wrong place."""
    for key, value in kafka.items():
        if _SECRET.search(key) and not isinstance(value, str):
            raise ValueError(f"{key} must be text; put it in quotes, since YAML reads 0123 as a number")
        if is_secret_file(key) and (plain := key.removesuffix(".file")) in kafka:
            raise ValueError(f"{plain} and {key} are both given; give one of them")


KafkaSettings = Annotated[
    dict[str, str | int | float | bool], BeforeValidator(lambda value: _check_kafka(flatten_kafka(value)))
]


class TopicsSettings(Part):
    """Where requests come from and where answers go."""

    requests: Annotated[
        tuple[str, ...], Field(min_length=1, description="Topics of requests; the worker's group consumes them all.")
    ]
    replies: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="Allowed reply topics: names, or patterns that start with ^. "
            "The first must be a name: it serves the requests that ask for no topic.",
        ),
    ]
    dead_letters: Annotated[
        str | None, Field(description="Topic for the raw records of failed requests; none keeps no dead letters.")
    ] = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.replies[0].startswith("^"):
            raise ValueError(f"replies[0]={self.replies[0]!r} must be a topic name, not a pattern")
        plain = [entry for entry in self.replies if not entry.startswith("^")]
        for name in (*self.requests, *plain, *([self.dead_letters] if self.dead_letters else [])):
            if not is_topic_name(name):
                raise ValueError(
                    f"{name!r} is no topic name; allowed are 1 to 249 of a-z A-Z 0-9 . _ -, but not . or .."
                )
        if len(set(self.requests)) < len(self.requests):
            raise ValueError(f"requests: {', '.join(self.requests)} names a topic twice")
        if self.dead_letters in plain:
            raise ValueError(f"{self.dead_letters!r} is for replies and for dead letters; give these their own topic")
        for name in (*plain, *([self.dead_letters] if self.dead_letters else [])):
            if name.startswith("__"):
                raise ValueError(f"{name!r} is an internal topic of Kafka; answers never go there")
            if name in self.requests:
                raise ValueError(f"{name!r} is also a request topic; answers would be read as requests")
        for pattern in self.replies:
            if not pattern.startswith("^"):
                continue
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"replies: {pattern!r} is no regular expression: {error}") from None
            if self.dead_letters is not None and compiled.fullmatch(self.dead_letters):
                raise ValueError(f"replies: {pattern!r} matches the dead-letter topic {self.dead_letters!r}")
            if matching := [name for name in self.requests if compiled.fullmatch(name)]:
                raise ValueError(f"replies: {pattern!r} matches the request topic {matching[0]!r}")
        return self


class QueueSettings(Part):
    """What `mode: queue` alone needs."""

    lock_ms: Annotated[
        int | None,
        Field(
            ge=1000,
            le=3_600_000,
            description="How long the broker keeps a polled request for this worker; what is not started after 60 % of "
            "it is handed back. none: as set for the group, else 2.5 × limits.forward_timeout_ms within 15 to 60 s.",
        ),
    ] = None
    max_deliveries: Annotated[
        int | None,
        Field(
            ge=2,
            le=1000,
            description="How often the broker hands a request out; at the last time, of 5 or more the last but one, it "
            "is answered poison. none: as set for the group, else 10.",
        ),
    ] = None
    consumers: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Share consumers for each copy of the model. Higher: a fast model waits less for the broker, "
            "and more is held.",
        ),
    ] = 2


class DeliverySettings(Part):
    """What is promised, and when offsets are committed."""

    mode: Annotated[
        Literal["at-least-once", "exactly-once", "queue"],
        Field(
            description="The delivery mode, see [delivery.md](delivery.md). With exactly-once, readers of the replies "
            "need isolation.level=read_committed; queue is experimental."
        ),
    ] = "at-least-once"
    transactional_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=249,
            description="With exactly-once: a name that no other worker has and that a restart keeps, as a "
            "StatefulSet's pod name. The restarted worker then ends at once what it left open; without one, readers "
            "wait for transaction.timeout.ms. By default <group.id>-<random>, anew in every process.",
        ),
    ] = None
    start: Annotated[
        Literal["earliest", "latest", "fail"],
        Field(
            description="Where to begin in a partition for which the group has no committed offset; "
            "one that is added while the worker runs is read from its beginning."
        ),
    ] = "earliest"
    commit_interval_ms: Annotated[
        int, Field(ge=1, le=60_000, description="Least time between commits. Lower: fewer repeats after a crash.")
    ] = 200
    drain_ms: Annotated[
        int, Field(ge=0, le=300_000, description="How long a rebalance waits for the batches that are in flight.")
    ] = 5_000
    max_uncommitted: Annotated[
        int,
        Field(
            ge=1,
            description="Most records polled but not covered by an accepted commit; bounds what is repeated. "
            "Not in queue, where the polls bound it.",
        ),
    ] = 100_000
    queue: Annotated[QueueSettings, Field(description="What mode queue alone needs.")] = QueueSettings()


class BatchingSettings(Part):
    """When a batch closes."""

    max_batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            le=65_536,
            validation_alias=AliasChoices("max_batch_size", "batch_size"),
            description="Most rows in one forward pass; 1 never merges requests. none: found by a short profile after "
            "the warm-up, 32 where there is nothing to profile; a request may then have 32 rows.",
        ),
    ] = None
    linger_ms: Annotated[
        float,
        Field(
            ge=0,
            le=3_600_000,
            validation_alias=AliasChoices("linger_ms", "max_queue_delay_ms", "max_batch_delay"),
            description="Most time the oldest request waits for company. Higher: larger batches, more latency. Above "
            "some 800 requests a second the worker may wait before a poll for the answers of the turn before, and then "
            "rest, each for up to 6 ms and never longer than this; with 0 it never rests.",
        ),
    ] = 20
    adaptive_linger: Annotated[
        bool,
        Field(
            description="Wait for company only while that shortens the mean latency, judged by how requests arrive and "
            "how long passes take; linger_ms is the most. false: an idle copy always waits linger_ms."
        ),
    ] = True
    preferred_batch_sizes: Annotated[
        tuple[int, ...], Field(description="Row counts at which a batch goes at once; rarely useful.")
    ] = ()
    max_batch_cost: Annotated[
        int | None,
        Field(
            ge=1,
            description="Most cost (tokens; of pictures, rows) of one pass, padding included. none: found by the "
            "profile where max_batch_size is none, too; else no bound.",
        ),
    ] = None
    lookahead: Annotated[
        int, Field(ge=1, le=1024, description="Batches' worth of waiting rows searched for companions near in cost.")
    ] = 4

    @property
    def rows(self) -> int:
        """Most rows of a request, and of a batch unless a profile finds better."""
        return 32 if self.max_batch_size is None else self.max_batch_size

    @model_validator(mode="after")
    def _preferred(self) -> Self:
        for size in self.preferred_batch_sizes:
            if not 1 <= size <= self.rows:
                raise ValueError(f"preferred_batch_sizes: {size} is not within 1 and max_batch_size={self.rows}")
        return self


class InstanceGroup(Part):
    """`count` copies of the model on each of `devices`."""

    count: Annotated[int, Field(ge=1, le=64, description="Copies of the model on each device.")] = 1
    devices: Annotated[
        tuple[str, ...],
        Field(
            description="cpu, cuda:0, ...; none means every visible GPU, else one CPU; for a class of your own the "
            "CPU, unless its default_devices says otherwise."
        ),
    ] = ()


class WarmupSettings(Part):
    """Passes run on every instance before the group is joined."""

    samples: Annotated[
        tuple[Any, ...], Field(description="Input rows as in a request; none uses the model's own samples.")
    ] = ()
    files: Annotated[
        tuple[Path, ...], Field(description="Files whose bytes are input rows (images), or text files (.txt).")
    ] = ()
    batch_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(description="Each sample is run at each of these sizes.")
    ] = (1,)
    count: Annotated[int, Field(ge=0, description="How often; 0 switches the warm-up off.")] = 1


class ModelSettings(Part):
    """The model that this worker serves."""

    # `class` and `model_…` are names that pydantic would reserve.
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    name: Annotated[str, Field(min_length=1, max_length=200, description="Its name, echoed in every reply.")]
    version: Annotated[str, Field(min_length=1, max_length=200, description="Its version, echoed too.")] = "1"
    task: Annotated[
        str | None,
        Field(description="A built-in task: feature-extraction, text-classification, fill-mask, image-classification."),
    ] = None
    path: Annotated[str | None, Field(description="Folder or hub name of the checkpoint of a built-in task.")] = None
    class_: Annotated[
        str | None,
        Field(validation_alias=AliasChoices("class", "class_"), description="module:Class of a model of your own."),
    ] = None
    options: Annotated[dict[str, Any], Field(description="Keyword arguments for the model's constructor.")] = {}
    error_detail: Annotated[
        Literal["none", "message", "traceback"],
        Field(
            description="What a client is told of an exception of the model. none: the code and a fixed sentence; "
            "message: also the exception's class; traceback: all, with paths and perhaps other requests' texts."
        ),
    ] = "message"
    instance_group: Annotated[
        tuple[InstanceGroup, ...], Field(min_length=1, description="Copies of the model, by device: a list.")
    ] = (InstanceGroup(),)
    warmup: Annotated[WarmupSettings, Field(description="Passes before the group is joined.")] = WarmupSettings()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.task is None) == (self.class_ is None):
            raise ValueError("exactly one of task and class must be given")
        if self.task is not None and self.path is None:
            raise ValueError(f"path is missing: task {self.task!r} needs the folder or hub name of a checkpoint")
        if self.class_ is not None and self.path is not None:
            raise ValueError("path belongs to task; give a class its arguments by options")
        return self


class RetrySettings(Part):
    """What is tried again before a request is answered with an error."""

    attempts: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Passes in all after transient errors (forebay_consumer.TransientError, connections, timeouts);"
            " 1 never repeats. Every other error splits the batch at once.",
        ),
    ] = 3
    backoff_ms: Annotated[
        float,
        Field(
            ge=0,
            le=3_600_000,
            description="Bound on the first wait; it doubles each time, and the wait is drawn between 0 and the bound.",
        ),
    ] = 200
    max_backoff_ms: Annotated[
        float, Field(ge=0, le=3_600_000, description="What the bound on a wait never exceeds.")
    ] = 5_000
    breaker_window: Annotated[
        int, Field(ge=1, le=1_000_000, description="How many of a copy's last requests its breaker looks at.")
    ] = 200
    breaker_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of them that may fail in the model; more, and the worker ends instead of filling the "
            "dead letters. 1 never ends it.",
        ),
    ] = 0.9
    trials: Annotated[
        int,
        Field(
            ge=1,
            description="Lives in which one record may kill the process while it runs alone, before it is answered "
            "poison.",
        ),
    ] = 2


class LimitsSettings(Part):
    """Bounds on memory and time."""

    max_in_flight: Annotated[
        int | None,
        Field(ge=1, description="Most rows from poll to confirmed reply; none: enough to keep the instances busy."),
    ] = None
    max_bytes_in_flight: Annotated[
        int, Field(ge=1, description="Most bytes of requests from poll to confirmed reply.")
    ] = 64 * 1024 * 1024
    max_request_bytes: Annotated[int, Field(ge=1, description="A larger request is answered too_large, unread.")] = (
        16 * 1024 * 1024
    )
    max_backlog: Annotated[
        int | None,
        Field(
            ge=0,
            description="Most requests of a partition that may wait behind the one taken up; it is answered rejected "
            "where there are more, so the oldest are refused first. None: they wait.",
        ),
    ] = None
    request_ttl_ms: Annotated[
        int | None,
        Field(
            ge=1,
            description="A request older than that, by its record's timestamp, is answered expired instead of run; "
            "its header deadline-ms may only shorten it.",
        ),
    ] = None
    forward_timeout_ms: Annotated[
        int | None,
        Field(
            ge=1,
            description="A forward pass that takes longer ends the process, with all stacks on standard error; its "
            "requests are run again by the next owner. none: no limit.",
        ),
    ] = 60_000
    preprocess_timeout_ms: Annotated[
        int | None,
        Field(
            ge=1,
            description="The same for decoding one chunk, of at most max_batch_size requests or 32, the larger of the "
            "two, and for one call of the model's preprocess, with at most a million characters, eight images, or "
            "one row that is larger. none: no limit.",
        ),
    ] = 60_000
    preprocess_threads: Annotated[
        int, Field(ge=1, le=256, description="Threads that decode and tokenise; raise it for images.")
    ] = 1
    shutdown_ms: Annotated[
        int,
        Field(
            ge=0,
            description="After SIGTERM: most time to answer and commit what is inside; "
            "1 s later the process ends, whatever still hangs.",
        ),
    ] = 30_000


class MetricsSettings(Part):
    """The port with /metrics, /livez, /readyz and /startupz."""

    host: Annotated[str, Field(description="Address to listen on.")] = "0.0.0.0"
    port: Annotated[int | None, Field(ge=0, le=65_535, description="0 picks a free one; null opens none.")] = 9400


class LoggingSettings(Part):
    """What is written, on standard error; at debug a line for each batch."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="Least level written.")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Field(description="auto: console on a terminal, json elsewhere.")
    ] = "auto"


class Layered(BaseSettings):
    """Settings from flags (init) over the environment over the file."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="FOREBAY_",
        env_nested_delimiter="__",
    )
    _in_file: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del env_settings, dotenv_settings, file_secret_settings
        sources = [init_settings, Environment(settings_cls), InitSettingsSource(settings_cls, dict(cls._in_file))]
        return tuple(OneSpelling(settings_cls, source) for source in sources)


class WorkerSettings(Layered):
    """Everything a worker needs to know. `load` makes one."""

    kafka: Annotated[KafkaSettings, Field(description="Passed to librdkafka as it is.")]
    topics: TopicsSettings
    delivery: Annotated[DeliverySettings, BeforeValidator(delivery_mode)] = DeliverySettings()
    batching: BatchingSettings = BatchingSettings()
    model: ModelSettings
    retry: RetrySettings = RetrySettings()
    limits: LimitsSettings = LimitsSettings()
    metrics: MetricsSettings = MetricsSettings()
    logging: LoggingSettings = LoggingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        rows = self.limits.max_in_flight
        if rows is not None and rows < self.batching.rows:
            raise ValueError(
                f"limits.max_in_flight={rows} is less than batching.max_batch_size={self.batching.rows}: "
                "no full batch could ever form"
            )
        ttl, linger = self.limits.request_ttl_ms, self.batching.linger_ms
        if ttl is not None and linger >= ttl:
            raise ValueError(
                f"batching.linger_ms={linger:g} is not less than limits.request_ttl_ms={ttl}: a lone request would "
                "expire while it waits for company"
            )
        level = self.kafka.get("isolation.level", "read_committed")
        if self.delivery.mode == "exactly-once" and level != "read_committed":
            raise ValueError(
                f"kafka.isolation.level={level!r}: with delivery exactly-once it is 'read_committed'; {COMMITTED_ONLY}"
            )
        if self.delivery.mode == "queue":
            self._check_queue()
        return self

    def _check_queue(self) -> None:
        for key, reason in REFUSED_BY_QUEUE.items():
            if key in self.kafka:
                raise ValueError(f"kafka.{key} may not be set with delivery.mode queue: {reason}")
        if self.delivery.start == "fail":
            raise ValueError(
                "delivery.start=fail: allowed with delivery.mode queue are earliest and latest; no client can ask "
                "whether a share group has begun"
            )
        if self.limits.max_backlog is not None:
            raise ValueError(
                "limits.max_backlog may not be set with delivery.mode queue: many workers share a partition, and none "
                "knows what waits; limits.request_ttl_ms refuses what has waited too long"
            )

    def shown(self) -> dict[str, Any]:
        """The merged settings as plain data, secrets hidden."""
        plain = self.model_dump(mode="json", by_alias=False)
        plain["kafka"] = {
            key: "***" if _SECRET.search(key) and not is_secret_file(key) else value
            for key, value in plain["kafka"].items()
        }
        plain["model"]["options"] = _hidden(plain["model"]["options"])
        plain["model"]["class"] = plain["model"].pop("class_")
        return plain


def _hidden(options: Any) -> Any:
    """A model's own options, where `token` may be a hub's and `tokenizer` is none."""
    if isinstance(options, Mapping):
        return {key: "***" if _is_secret(str(key)) else _hidden(value) for key, value in options.items()}
    return [_hidden(value) for value in options] if isinstance(options, list) else options


def _is_secret(key: str) -> bool:
    return _SECRET_WORD.search(_HUMP.sub("_", key)) is not None


class LetterSettings(Layered):
    """What the commands on dead letters need of a worker's settings; its other parts may be there or not."""

    model_config = SettingsConfigDict(extra="ignore")

    kafka: KafkaSettings
    topics: TopicsSettings

    @model_validator(mode="before")
    @classmethod
    def _known_parts(cls, parts: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(parts.keys() - WorkerSettings.model_fields.keys()):
            raise ValueError(f"{unknown[0]} is no part; allowed are {', '.join(WorkerSettings.model_fields)}")
        return parts


def load(file: Path | None, overrides: Sequence[str] = ()) -> WorkerSettings:
    """Read and merge the settings.

    Args:
        file: a YAML file, or None for the environment alone.
        overrides: `part.key=value` with a YAML value, as given by `--set`.
    Raises:
        BadConfig: the file is missing or no YAML, or a key or value is not allowed; the message names each.
    """
    return _load(WorkerSettings, file, overrides)


def load_for_letters(file: Path | None, overrides: Sequence[str] = ()) -> LetterSettings:
    """As `load`, but only `kafka` and `topics` are needed and checked."""
    return _load(LetterSettings, file, overrides)


def _load(kind: type[_Settings], file: Path | None, overrides: Sequence[str]) -> _Settings:
    if file is not None and not file.is_file():
        raise BadConfig(f"no configuration file at {file}; write one, or name another with --config")
    check_variables(os.environ, list(WorkerSettings.model_fields))
    in_file = {} if file is None else read_file(file)
    loader = type("Loaded", (kind,), {"_in_file": in_file, "__module__": __name__})
    flags = parse_flags(WorkerSettings, overrides)
    try:
        settings = loader(**flags)
    except ValidationError as error:
        raise BadConfig(_explain(error, file, overrides)) from None
    except SettingsError as error:
        raise BadConfig(f"the environment: {_unreadable(error)}") from None
    assert isinstance(settings, kind)
    return settings


def _explain(error: ValidationError, file: Path | None, overrides: Sequence[str]) -> str:
    lines = [f"the configuration ({_sources(file, overrides)}) cannot be used:"]
    problems = error.errors()
    for problem in problems:
        where = ".".join(str(step) for step in problem["loc"]) or "as a whole"
        if problem["type"] == "too_short" and _holds_another(problem["loc"], problems):
            continue  # the list is short of the entries that are refused one by one
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {where}: no such setting; allowed are {', '.join(_keys(problem['loc'][:-1]))}")
            continue
        whole = problem["type"] == "value_error" and isinstance(problem["input"], Mapping | BaseModel)
        given = "" if whole or problem["type"] == "missing" else f" (given: {_brief(where, problem['input'])})"
        lines.append(f"  {where}: {_wanted(problem)}{given}")
    if file is None and any(problem["type"] == "missing" for problem in problems):
        lines.append("  no file was read; give --config, as in --config worker.yaml")
    return "\n".join(lines)


def _sources(file: Path | None, overrides: Sequence[str]) -> str:
    """Where the settings come from: all that may hold what is wrong."""
    variables = any(name.upper().startswith(PREFIX) for name in os.environ)
    named = [str(file)] * (file is not None) + [f"{PREFIX}… variables"] * variables + ["--set"] * bool(overrides)
    return ", ".join(named) or "no file, no variables"


def _holds_another(place: Sequence[str | int], problems: Sequence[ErrorDetails]) -> bool:
    return any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in problems)


def _wanted(problem: ErrorDetails) -> str:
    """What is allowed, in words of the file and not of Python's types."""
    if problem["type"] == "tuple_type":
        return f"expected a list, as in {'[{a: 1}]' if isinstance(problem['input'], Mapping) else '[a, b]'}"
    if problem["type"] in ("model_type", "dict_type"):
        return "expected a mapping, as in {a: 1}"
    if problem["type"] == "too_short":
        return "expected a list of at least one entry"
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("int_parsing", "float_parsing") and _may_be_none(problem["loc"]):
        return f"{said}; null for none"
    return said


def _keys(place: Sequence[str | int]) -> list[str]:
    """What may be set there."""
    return [name.rstrip("_") for name in _part_at(place).model_fields]


def _part_at(place: Sequence[str | int]) -> type[BaseModel]:
    part: type[BaseModel] = WorkerSettings
    for step in place:
        if isinstance(step, str):
            part = part_of(_field(part, step)) or part
    return part


def _field(part: type[BaseModel], name: str) -> FieldInfo:
    return part.model_fields.get(name) or part.model_fields[f"{name}_"]


def _may_be_none(place: Sequence[str | int]) -> bool:
    *parts, name = place
    return isinstance(name, str) and NoneType in getattr(_field(_part_at(parts), name).annotation, "__args__", ())


def _unreadable(error: SettingsError) -> str:
    """Which variable is no JSON. The parser knows its text, which may hold secrets, but not its name."""
    text = getattr(error.__cause__, "doc", None)
    found = [name for name, value in os.environ.items() if name.upper().startswith(PREFIX) and value == text]
    if not found:
        return f"{error}: {error.__cause__}"
    example = 'a list or a mapping is written as JSON in a variable, as in ["a", "b"] or {"a": 1}'
    return f"{found[0]}: {example}; what it holds is none ({error.__cause__})"


def _brief(where: str, value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if where == "kafka" or _SECRET.search(where) or isinstance(value, BaseModel):
        return type(value).__name__
    return f"{value!r:.80}"
