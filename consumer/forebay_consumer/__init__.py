"""The Forebay worker: polls requests from Kafka, batches them, runs the model, replies, and only then commits."""

from forebay_consumer.errors import FatalError, OutOfMemory, TransientError
from forebay_consumer.model import Model

__all__ = ["FatalError", "Model", "OutOfMemory", "TransientError"]
