"""What is sent and what is read, in plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

Header: TypeAlias = "tuple[str, bytes | None]"
"""Name and value; a value of None differs from an empty one. A name may repeat."""

Headers: TypeAlias = "Sequence[Header] | Mapping[str, bytes | None]"


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


@dataclass(slots=True)
class Record:
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    #: Milliseconds since the Unix epoch.
    timestamp_ms: int
    #: None differs from b"".
    key: bytes | None
    #: None differs from b"".
    value: bytes | None
    headers: tuple[Header, ...] = ()


class Fate(enum.Enum):
    """Who decided what became of a record."""

    #: The topic's pipeline did its work, or there is none.
    PIPELINE = 1
    #: A stage failed on it, and skips such records.
    SKIPPED = 2
    #: A stage failed on it, and it went to the dead-letter topic.
    DEAD_LETTERED = 3
    #: A stage failed on it, and it was stored as it was.
    PASSED = 4


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a record that was sent."""

    topic: str
    partition: int
    #: Offset of what was stored of it, the first where it became several records; None where nothing was.
    offset: int | None
    #: How many stored records it became: 1 without a pipeline, 0 where it was dropped.
    stored: int
    fate: Fate
    #: The pipeline version that it went through; 0 for none, and for a batch that had been sent before.
    pipeline_version: int


class Acks(enum.Enum):
    """When the agent answers."""

    #: As the topic says, which is durable unless it was altered.
    DEFAULT = 0
    #: After the write-ahead log has the batch on stable storage.
    DURABLE = 1
    #: Once the batch is appended in memory: it may still be lost.
    MEMORY = 2


class Compression(enum.Enum):
    """How a batch's records are compressed on their way. The numbers are Kafka's."""

    NONE = 0
    #: Needs the extra `lz4`.
    LZ4 = 3
    #: Needs the extra `zstd`.
    ZSTD = 4


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin reading: `Start.EARLIEST`, `Start.LATEST`, `Start.offset(n)` or `Start.timestamp(ms)`."""

    kind: str
    at: int = 0
    #: At the first record that is still there.
    EARLIEST: ClassVar[Start]
    #: Behind the last record that is there now.
    LATEST: ClassVar[Start]

    @staticmethod
    def offset(offset: int) -> Start:
        """At this offset."""
        return Start("offset", offset)

    @staticmethod
    def timestamp(timestamp_ms: int) -> Start:
        """At the first record of this time or later, in milliseconds since the Unix epoch; else behind the last."""
        return Start("timestamp", timestamp_ms)


Start.EARLIEST = Start("earliest")
Start.LATEST = Start("latest")
