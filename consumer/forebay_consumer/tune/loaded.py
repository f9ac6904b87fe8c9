"""The model in each precision and with each number of threads, as candidates of the sweep."""

from collections.abc import Sequence
from dataclasses import dataclass

from forebay_consumer.build import make_models, warmup_rows
from forebay_consumer.config import ModelSettings
from forebay_consumer.errors import BadConfig, FatalError, ModelUnavailable, WrongLength
from forebay_consumer.meaning import translated
from forebay_consumer.model import Model
from forebay_consumer.record import Item
from forebay_consumer.tune.recorded import Prepare, Prepared
from forebay_consumer.tune.sweep import Variant
from forebay_consumer.window import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """One copy of the model, run as a worker's instance runs it. Copies of other threads share it."""

    variant: Variant
    model: Model
    prepared: Prepared

    @property
    def items(self) -> Sequence[Item]:
        return self.prepared.items

    @property
    def packs(self) -> bool:
        return self.model.packing is not None

    def enter(self) -> None:
        if self.variant.threads is not None:
            from forebay_consumer.models.threads import use_threads

            use_threads(self.variant.threads)

    def run(self, batch: Batch) -> None:
        rows = [row for item in batch.items for row in item.rows]
        with translated():
            output = self.model.forward(self.model.collate(rows))
            outputs = self.model.postprocess(output, rows, batch.items[0].parameters)
        if len(outputs) != len(rows):
            raise WrongLength(len(rows), len(outputs))


def load(settings: ModelSettings, dtypes: Sequence[str], threads: Sequence[int], prepare: Prepare) -> list[Loaded]:
    """Load the model in each precision, on the first of its devices; all are held at the same time.

    Args:
        dtypes, threads: none leaves the configured ones.
    Raises:
        BadConfig: a value is not allowed, or the model is no built-in one and has no such option.
        FatalError: it cannot be loaded, or prepares nothing.
    """
    if settings.task is None and (dtypes or threads):
        raise BadConfig(
            f"{'--dtypes' if dtypes else '--threads'}: model.class={settings.class_!r} chooses that itself; the "
            "option is for built-in tasks"
        )
    candidates = []
    for dtype in dtypes or (None,):
        options = dict(settings.options) if dtype is None else {**settings.options, "dtype": dtype}
        device, model = make_models(settings.model_copy(update={"options": options}))[0]
        try:
            model.load(device)
            model.tune(warmup_rows(settings.warmup, model) if settings.warmup.count else ())
        except FatalError:
            raise
        except Exception as error:
            raise ModelUnavailable(f"the model cannot be loaded on {device}: {error}") from error
        prepared = prepare(model)
        candidates += [Loaded(Variant(dtype, count), model, prepared) for count in threads or (None,)]
    return candidates
