"""Dead letters for people and for pipes: tables, lines, JSON. What strangers wrote is never sent to a terminal raw."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from rich.table import Table
from rich.text import Text

from forebay_consumer.dlq.letters import Entry, Letter
from forebay_consumer.dlq.redrive import Fate, Tally, Where

HEX_BYTES: Final = 512  # of a value that is no text
STRANGER: Final = "not written by a Forebay worker"


def plain(entry: Entry, letter: Letter | None, redriven: bool) -> dict[str, Any]:
    """One letter as JSON data; what is not known of a record that no worker wrote is null."""
    line: dict[str, Any] = {
        "partition": entry.partition,
        "offset": entry.offset,
        "time": moment(entry.timestamp_ms),
        "code": None,
        "stage": None,
        "request_id": None,
        "source": None,
        "attempts": None,
        "redrives": None,
        "redriven": redriven,
        "size": _size(entry),
        "message": STRANGER,
    }
    if letter is None:
        return line
    return line | {
        "code": letter.code,
        "stage": letter.stage,
        "request_id": letter.request_id,
        "source": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "attempts": letter.attempts,
        "redrives": letter.redrives,
        "message": letter.message,
    }


def json_line(line: dict[str, Any]) -> str:
    return orjson.dumps(line).decode()


def table(lines: Sequence[dict[str, Any]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("letter", "time", "code", "stage", "request id", "source", "bytes", "back", "message"):
        made.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
    for line in lines:
        source = line["source"]
        cells = (
            f"{line['partition']}:{line['offset']}",
            line["time"] or "-",
            line["code"] or "-",
            line["stage"] or "-",
            line["request_id"] or "-",
            f"{source['topic']}-{source['partition']}@{source['offset']}" if source else "-",
            str(line["size"]),
            "yes" if line["redriven"] else "",
            line["message"],
        )
        made.add_row(*(Text(printable(cell)) for cell in cells))
    return made


def page(entry: Entry, letter: Letter | None, redriven: bool) -> Iterator[str]:
    """Everything about one letter, line by line."""
    line = plain(entry, letter, redriven)
    yield f"letter    {entry.partition}:{entry.offset}  {line['time'] or 'no time'}"
    if letter is not None:
        yield f"request   {printable(letter.request_id)}"
        yield f"source    {printable(letter.topic)}-{letter.partition}@{letter.offset}"
        yield f"code      {printable(letter.code)} in {printable(letter.stage)}, attempts {printable(letter.attempts)}"
    yield f"message   {printable(line['message'])}"
    if letter is not None and letter.omitted is not None:
        yield f"lost      {printable(letter.omitted)}"
    yield f"put back  {'yes' if redriven else 'no'}"
    yield f"key       {_bytes(entry.key)}"
    yield "headers"
    for name, value in entry.headers:
        yield f"  {printable(name)}: {_bytes(value)}"
    yield from _value(entry.value)


def moved_line(letter: Letter, where: Where) -> str:
    place = f"{where.topic}-{where.partition}" if where.partition >= 0 else where.topic
    offset = f"@{where.offset}" if where.offset >= 0 else ""
    at = f"{letter.entry.partition}:{letter.entry.offset}"
    return f"{at} {printable(letter.code)} {printable(letter.request_id)} -> {place}{offset}"


def moved_json(letter: Letter, where: Where) -> str:
    target = {
        "topic": where.topic,
        "partition": where.partition if where.partition >= 0 else None,
        "offset": where.offset if where.offset >= 0 else None,
    }
    return json_line(plain(letter.entry, letter, redriven=where.offset >= 0) | {"target": target})


def summary(tally: Tally, verb: str) -> str:
    """`12 put back; 3 left: of a topic not in topics.requests`, and so on: what a run came to."""
    told = [f"{tally.fates[Fate.BACK]} {verb}"]
    told += [f"{tally.fates[fate]} {fate.value}" for fate in Fate if fate is not Fate.BACK and tally.fates[fate]]
    if tally.late:
        told.append(f"{tally.late} with a deadline that is past, which will expire again (--drop-deadline)")
    return "; ".join(told)


def moment(timestamp_ms: int | None) -> str | None:
    if timestamp_ms is None:
        return None
    try:
        return (
            datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError, OSError):  # a client may write any number as its time
        return str(timestamp_ms)


def printable(text: str) -> str:
    """The text with everything that a terminal could take for a command written as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _bytes(value: bytes | None) -> str:
    if value is None:
        return "(none)"
    text = _text(value)
    if text is None or "\n" in text or "\r" in text:
        return f"0x{value[:HEX_BYTES].hex()}{'…' if len(value) > HEX_BYTES else ''}  ({len(value)} bytes)"
    return printable(text)


def _value(value: bytes | None) -> Iterator[str]:
    if value is None:
        yield "value     (none)"
        return
    text = _text(value)
    if text is None:
        yield f"value     {len(value)} bytes, no text; --raw writes them"
        yield f"0x{value[:HEX_BYTES].hex()}{'…' if len(value) > HEX_BYTES else ''}"
    else:
        yield f"value     {len(value)} bytes of text"
        yield from map(printable, text.splitlines())


def _text(value: bytes) -> str | None:
    """The value where it is text that a person can read."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if all(sign.isprintable() or sign in "\t\n\r" for sign in text) else None


def _size(entry: Entry) -> int:
    return len(entry.key or b"") + len(entry.value or b"")
