"""What the Python binding does not do, by ctypes on its own library: header names that are not UTF-8, fatal errors."""

import ctypes
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, Producer

_TOPIC, _PARTITION, _VALUE, _KEY, _FLAGS, _HEADER = 1, 3, 4, 5, 7, 9  # rd_kafka_vtype_t
_COPY: Final = 2  # RD_KAFKA_MSG_F_COPY
_PRODUCER: Final = 0


class _Memory(ctypes.Structure):
    _fields_ = (("at", ctypes.c_char_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p), ("size", ctypes.c_ssize_t))


class _Either(ctypes.Union):
    _fields_ = (
        ("text", ctypes.c_char_p),
        ("number", ctypes.c_int32),
        ("memory", _Memory),
        ("header", _Header),
        ("padding", ctypes.c_char * 64),
    )


class _Argument(ctypes.Structure):
    """rd_kafka_vu_t"""

    _fields_ = (("kind", ctypes.c_int), ("u", _Either))


def bundled_library() -> Path | None:
    """The librdkafka inside the wheel, or None where the binding was built against another."""
    package = Path(confluent_kafka.__file__).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    return found[0] if found else None


def produce_raw(
    bootstrap_servers: str,
    topic: str,
    partition: int,
    value: bytes,
    *,
    key: bytes,
    headers: Sequence[tuple[bytes, bytes | None]],
) -> None:
    """Write one record, and return when the broker has it."""
    path = bundled_library()
    assert path is not None
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_produceva"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_conf_set.argtypes = [ctypes.c_void_p, *[ctypes.c_char_p] * 3, ctypes.c_size_t]
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_produceva.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Argument), ctypes.c_size_t]
    library.rd_kafka_flush.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
    told = ctypes.create_string_buffer(512)
    settings = library.rd_kafka_conf_new()
    set_ = library.rd_kafka_conf_set(settings, b"bootstrap.servers", bootstrap_servers.encode(), told, 512)
    assert set_ == 0, told.value
    producer = library.rd_kafka_new(_PRODUCER, settings, told, 512)
    assert producer, told.value
    try:
        arguments = [
            _Argument(_TOPIC, _Either(text=topic.encode())),
            _Argument(_PARTITION, _Either(number=partition)),
            _Argument(_VALUE, _Either(memory=_Memory(value, len(value)))),
            _Argument(_KEY, _Either(memory=_Memory(key, len(key)))),
            _Argument(_FLAGS, _Either(number=_COPY)),
        ]
        for header, content in headers:
            size = 0 if content is None else len(content)
            arguments.append(_Argument(_HEADER, _Either(header=_Header(header, content, size))))
        packed = (_Argument * len(arguments))(*arguments)
        assert library.rd_kafka_produceva(producer, packed, len(arguments)) is None, "the client refused it"
        assert library.rd_kafka_flush(producer, 30_000) == 0
    finally:
        library.rd_kafka_destroy(producer)


def end_producers() -> None:
    """Give every producer of this process a fatal error, by the function that librdkafka's own tests have for it."""
    path = bundled_library()
    assert path is not None
    library = ctypes.CDLL(str(path))
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    gc.unfreeze()  # the worker has frozen what was there when it had loaded, and frozen objects are not listed
    for producer in (found for found in gc.get_objects() if isinstance(found, Producer)):
        client = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)  # the binding's first field
        library.rd_kafka_test_fatal_error(client, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"scripted")
