"""Clients for Forebay: send texts and images to workers over Kafka, and get their answers as futures."""

from forebay_producer.bulk import Request, submit_all
from forebay_producer.client import Client
from forebay_producer.config import ClientSettings, load
from forebay_producer.errors import (
    BadSettings,
    BrokerUnavailable,
    ClientClosed,
    ForebayError,
    NotDelivered,
    QueueFull,
    ReplyTimeout,
    RequestFailed,
)

__all__ = [
    "BadSettings",
    "BrokerUnavailable",
    "Client",
    "ClientClosed",
    "ClientSettings",
    "ForebayError",
    "NotDelivered",
    "QueueFull",
    "ReplyTimeout",
    "Request",
    "RequestFailed",
    "load",
    "submit_all",
]
