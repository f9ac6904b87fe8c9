"""The limit: the model alone, every row in hand, in a process of its own on the model's core.

`python -m bench.limits loops T1 float32 COUNT` prints the loops' figures as JSON, `expected T1 float32 COUNT PLACES`
what the model says to some rows, `passes T1 float32 COUNT SIZES` the seconds of one pass at each batch size,
`memory T1 float32 COUNT` what a process with the model and nothing else needs.

T1 in four ways: one at a time; batches of 32 in order of arrival; sorted, cut by a token budget; packed, several texts
in one row of at most 256 tokens, in order of arrival. T2 and T3 have rows of one size: only the batch size differs. T1
and T2 also by the model class that Forebay brings, without anything else of Forebay around it.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psutil

from bench import reference
from bench.checkpoints import checkpoint
from bench.figures import percentile
from bench.load import rows_of
from bench.measure import MODEL_CORE, Tree, pin

BUDGET: Final = 1024
ROW_TOKENS: Final = 256
WINDOW: Final = 32
OWN: Final = {"T1": WINDOW, "T2": 8}
Row = dict[str, Any]
Way = tuple[str, Callable[[reference.Runner, Sequence[Any]], None]]


def main() -> None:
    what, load, dtype, count = sys.argv[1:5]
    pin(MODEL_CORE)
    rows = rows_of(load, int(count))
    load = load.partition(":")[0]  # a mix of lengths is the same model's
    if what == "memory":
        print(json.dumps({"peak_mb": memory(load, dtype, rows)}))
        return
    runner = reference.loaded(load, checkpoint(load), dtype)
    if what == "expected":
        places = [int(place) for place in sys.argv[5].split(",")]
        print(json.dumps({place: runner.run([rows[place]])[0].tolist() for place in places}))
    elif what == "passes":
        print(json.dumps(passes(runner, rows, [int(size) for size in sys.argv[5].split(",")])))
    else:
        print(json.dumps(loops(load, dtype, runner, rows)))


def passes(runner: reference.Runner, rows: Sequence[Any], sizes: Sequence[int]) -> Row:
    """Seconds to run the first rows once, in passes of each size; the median of three, sizes in turn."""
    runner.run(rows)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(3):
        for size in sizes:
            started = time.perf_counter()
            batches_of(size)(runner, rows)
            seconds[size].append(time.perf_counter() - started)
    return {str(size): statistics.median(found) for size, found in seconds.items()}


def loops(load: str, dtype: str, runner: reference.Runner, rows: Sequence[Any]) -> list[Row]:
    runner.run(rows[:4])
    found = [timed(name, way, runner, rows) for name, way in WAYS[load]]
    if load in OWN:
        own = by_own_class(load, dtype)
        own(runner, rows[: OWN[load]])
        found.append(timed(f"model alone, Forebay's class, {OWN[load]} at a time", own, runner, rows))
    return found


def memory(load: str, dtype: str, rows: Sequence[Any]) -> float:
    """Most memory of a process with nothing but Forebay's own model class, after all rows in passes of its size."""
    by_own_class(load, dtype)(None, rows)
    return Tree(os.getpid()).peak_mb()


def by_own_class(load: str, dtype: str) -> Callable[[Any, Sequence[Any]], None]:
    """Passes of Forebay's own model class, from rows to JSON-ready answers; the runner is not used."""
    import structlog

    from forebay_consumer.allocator import keep_memory
    from forebay_consumer.models.image import ImageClassification
    from forebay_consumer.models.text import FeatureExtraction

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # the figures go to the other
    keep_memory()  # as in the worker; the other loops are over by now
    kind: Any = FeatureExtraction if load == "T1" else ImageClassification
    model = kind(path=checkpoint(load), dtype=dtype, threads=1)
    model.load("cpu")

    def run(_: Any, rows: Sequence[Any]) -> None:
        for start in range(0, len(rows), OWN[load]):
            prepared = model.preprocess(rows[start : start + OWN[load]], {})
            model.postprocess(model.forward(model.collate(prepared)), prepared, {})

    return run


def timed(name: str, way: Callable[[reference.Runner, Sequence[Any]], None], runner: Any, rows: Sequence[Any]) -> Row:
    process = psutil.Process()
    before, started = process.cpu_times(), time.perf_counter()
    way(runner, rows)
    wall, after = time.perf_counter() - started, process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    row = {"peer": name, "count": len(rows), "per_s": len(rows) / wall, "cpu_ms": 1000 * cpu / len(rows)}
    return {**row, **alone(runner, rows)} if way is one_at_a_time else row


def alone(runner: reference.Runner, rows: Sequence[Any]) -> Row:
    """How long one bare forward pass of one row takes."""
    seconds = []
    for row in rows[:200]:
        started = time.perf_counter()
        runner.run([row])
        seconds.append(time.perf_counter() - started)
    return {f"p{share}_ms": 1000 * percentile(seconds, share / 100) for share in (50, 95, 99)}


def one_at_a_time(runner: reference.Runner, rows: Sequence[Any]) -> None:
    for row in rows:
        runner.run([row])


def batches_of(size: int) -> Callable[[reference.Runner, Sequence[Any]], None]:
    def run(runner: reference.Runner, rows: Sequence[Any]) -> None:
        for start in range(0, len(rows), size):
            runner.run(rows[start : start + size])

    return run


def budgeted(runner: Any, rows: Sequence[Any]) -> None:
    """All texts by length, cut where rows × longest would exceed the budget."""
    batch: list[list[int]] = []
    for ids in sorted(_token_ids(runner, rows), key=len):
        if batch and (len(batch) + 1) * len(ids) > BUDGET:
            _embed_padded(runner, batch)
            batch = []
        batch.append(ids)
    _embed_padded(runner, batch)


def packed(runner: Any, rows: Sequence[Any]) -> None:
    for start in range(0, len(rows), WINDOW):
        embed_packed(runner, _token_ids(runner, rows[start : start + WINDOW]))


def embed_packed(runner: Any, texts: Sequence[Sequence[int]]) -> Any:
    """Several texts a row, each seeing only itself and counting its positions from 0.

    Returns:
        Float32 [N, D]: vector i is that of text i, as if it had run alone.
    """
    import torch

    bins = packed_rows([len(ids) for ids in texts], ROW_TOKENS)
    width = max(sum(len(texts[place]) for place in members) for members in bins)
    ids = torch.zeros(len(bins), width, dtype=torch.long)  # [R, W]
    positions = torch.zeros(len(bins), width, dtype=torch.long)
    owner = torch.full((len(bins), width), -1)  # [R, W], which text a token belongs to; -1 is padding
    for row, members in enumerate(bins):
        start = 0
        for place in members:
            end = start + len(texts[place])
            ids[row, start:end] = torch.tensor(texts[place])
            positions[row, start:end] = torch.arange(end - start)
            owner[row, start:end] = place
            start = end
    same = owner.unsqueeze(2) == owner.unsqueeze(1)  # [R, W, W]; padding sees padding, so that no row is all masked
    mask = torch.zeros(same.shape, dtype=runner.model.dtype)
    mask.masked_fill_(~same, torch.finfo(mask.dtype).min)
    with torch.inference_mode():
        states = runner.model(input_ids=ids, attention_mask=mask.unsqueeze(1), position_ids=positions)
        flat = states.last_hidden_state.float().flatten(0, 1)  # [R * W, D]
        kept = owner.flatten() >= 0
        sums = torch.zeros(len(texts), flat.shape[-1]).index_add_(0, owner.flatten()[kept], flat[kept])  # [N, D]
        return torch.nn.functional.normalize(sums, dim=-1).numpy()  # the mean's length does not matter


def packed_rows(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Places of the texts of each row: the longest first, each into the first row with room. Pure."""
    bins: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        row = next((row for row, left in enumerate(room) if left >= lengths[place]), None)
        if row is None:
            bins.append([])
            room.append(max(limit, lengths[place]))
            row = len(bins) - 1
        bins[row].append(place)
        room[row] -= lengths[place]
    return bins


def _token_ids(runner: Any, rows: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = runner.tokenizer(list(rows), truncation=True, max_length=runner.limit)["input_ids"]
    return found


def _embed_padded(runner: Any, texts: Sequence[Sequence[int]]) -> None:
    runner.embed(runner.tokenizer.pad({"input_ids": texts}, return_tensors="pt"))


def ways() -> Iterator[tuple[str, list[Way]]]:
    single: Way = ("model alone, one at a time", one_at_a_time)
    by_32: Way = ("model alone, 32 in order of arrival", batches_of(32))
    yield "T1", [single, by_32, ("model alone, sorted, token budget", budgeted), ("model alone, packed", packed)]
    yield "T2", [single, ("model alone, batches of 8", batches_of(8)), by_32]
    yield "T3", [single, by_32, ("model alone, batches of 256", batches_of(256))]


WAYS: Final = dict(ways())


if __name__ == "__main__":
    main()
