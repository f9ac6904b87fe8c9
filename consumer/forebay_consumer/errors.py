"""The worker's errors, by what happens next.

RequestError    answer  this request's fault: publish its error, its offset is done (forebay_schemas.errors)
BatchError      split   the pass failed as a whole: halve and run again; a lone culprit is answered
  OutOfMemory           the device could not hold the batch
  WrongLength           the model did not give one output per row
TransientError  retry   the world's fault: the same pass may succeed a moment later
FatalError      stop    ours to fix: exit non-zero, commit nothing
  BadConfig
  ModelUnavailable
  DeviceLost            the device answers nothing more in this process
  HelperLost            the pool of processes or threads that the model uses is broken
  DrainTimeout
  KafkaFailure          the brokers, or what they allow; no record is to blame
"""

from forebay_schemas import Code


class BatchError(Exception):
    """The forward pass failed as a whole; splitting the batch may help."""

    code = Code.MODEL_ERROR


class OutOfMemory(BatchError):
    """The device could not hold the batch."""

    code = Code.OUT_OF_MEMORY


class WrongLength(BatchError):
    """The model did not give one output per row."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"the model gave {got} outputs for {expected} rows; expected one per row, in order")


class TransientError(Exception):
    """The world's fault: a model raises it, and the pass is run again within `retry.attempts`, then split."""


class FatalError(Exception):
    """Ours to fix: the process ends non-zero and commits nothing more."""


class BadConfig(FatalError):
    """The configuration cannot work; the message names the key, the value and what is allowed."""


class ModelUnavailable(FatalError):
    """The model cannot be loaded."""


class DeviceLost(FatalError):
    """The device's context is broken: every further pass in this process would fail, whoever asks. Start a new one."""


class HelperLost(FatalError):
    """A pool of the model's own (`concurrent.futures`) is broken: every further call fails, whoever asks.

    A signal to the whole process group ends such helpers before the worker has drained, and so does a lack of memory.
    """


class KafkaFailure(FatalError):
    """Kafka takes no more from the worker, or gives no more; a restart, or whoever looks after the brokers, helps."""


class DrainTimeout(FatalError):
    """The worker could not answer what it held within `limits.shutdown_ms`; the next owner runs it again."""
