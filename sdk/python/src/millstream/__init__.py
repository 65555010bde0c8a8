"""The Millstream client for Python, for threads and for asyncio.

- `Producer` and `AsyncProducer` send records, each exactly once;
- `Consumer` and `AsyncConsumer` read topics, partitions, or as members of a group;
- `Admin` and `AsyncAdmin` make topics, deploy modules and bind them into pipelines.

`millstream.v1` has the messages and stubs that are generated from the protos.
"""

from millstream._consumer.settings import ConsumerSettings
from millstream._producer.settings import ProducerSettings
from millstream.admin import Admin
from millstream.async_admin import AsyncAdmin
from millstream.async_consumer import AsyncConsumer
from millstream.async_producer import AsyncDelivery, AsyncProducer
from millstream.consumer import Consumer
from millstream.errors import (
    AbortedError,
    AlreadyExistsError,
    BadAnswerError,
    BufferFullError,
    ClosedError,
    DeliveryTimeoutError,
    ExhaustedError,
    FailedPreconditionError,
    InvalidArgumentError,
    MillstreamError,
    NotFoundError,
    OutOfRangeError,
    ProducerFencedError,
    RecordsRejectedError,
    Rejected,
    UnavailableError,
)
from millstream.partitioner import partition_for_key
from millstream.producer import DeliveryFuture, Producer
from millstream.records import Acks, Compression, Delivery, Fate, Record, Start, TopicPartition

__all__ = [
    "AbortedError",
    "Acks",
    "Admin",
    "AlreadyExistsError",
    "AsyncAdmin",
    "AsyncConsumer",
    "AsyncDelivery",
    "AsyncProducer",
    "BadAnswerError",
    "BufferFullError",
    "ClosedError",
    "Compression",
    "Consumer",
    "ConsumerSettings",
    "Delivery",
    "DeliveryFuture",
    "DeliveryTimeoutError",
    "ExhaustedError",
    "FailedPreconditionError",
    "Fate",
    "InvalidArgumentError",
    "MillstreamError",
    "NotFoundError",
    "OutOfRangeError",
    "Producer",
    "ProducerFencedError",
    "ProducerSettings",
    "Record",
    "RecordsRejectedError",
    "Rejected",
    "Start",
    "TopicPartition",
    "UnavailableError",
    "partition_for_key",
]
