"""Clients for Forebay: send texts and images to workers over Kafka, and get their answers as futures."""

from forebay_producer.bulk import Request, submit_all
from forebay_producer.client import Client
from forebay_producer.config import ClientSettings, load
from forebay_producer.errors import (
    BadRequest,
    BadSettings,
    BrokerUnavailable,
    ClientClosed,
    ClientQueueFull,
    ForebayError,
    NotDelivered,
    ReplyTimeout,
    RequestFailed,
)

__all__ = [
    "BadRequest",
    "BadSettings",
    "BrokerUnavailable",
    "Client",
    "ClientClosed",
    "ClientQueueFull",
    "ClientSettings",
    "ForebayError",
    "NotDelivered",
    "ReplyTimeout",
    "Request",
    "RequestFailed",
    "load",
    "submit_all",
]
