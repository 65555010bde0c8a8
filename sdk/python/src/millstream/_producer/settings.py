"""How a producer collects and sends."""

from __future__ import annotations

from dataclasses import dataclass

from millstream._compression import require
from millstream.batch import BATCH_BYTES_MAX
from millstream.records import Acks, Compression


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """How a producer collects and sends; every field has a default.

    Raises:
        ValueError: For a value that makes no sense.
        ModuleNotFoundError: For a compression whose package is not installed.
    """

    #: When the agent answers.
    acks: Acks = Acks.DEFAULT
    #: A batch is sent once it holds this many encoded bytes, before compression; 16 MiB at most.
    batch_bytes: int = 256 << 10
    #: A batch that is not full is sent this long after its first record.
    linger_s: float = 0.005
    #: Bound on the bytes of records that are held, from `send` until they are answered; `send` waits for room.
    buffer_bytes_max: int = 32 << 20
    #: Batches that are sent and not answered yet.
    in_flight_max: int = 32
    compression: Compression = Compression.NONE
    #: How long after `send` a record is given up that was not acknowledged, and how long `send` waits for room.
    delivery_timeout_s: float = 120.0
    #: How long the partitions of a topic are remembered.
    topic_age_max_s: float = 60.0
    #: A name under which the producer is known from one start to the next: who takes it fences the one before.
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.batch_bytes <= BATCH_BYTES_MAX:
            raise ValueError(f"batch_bytes is 1 to {BATCH_BYTES_MAX}, not {self.batch_bytes}")
        for name in ("buffer_bytes_max", "in_flight_max", "delivery_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is more than 0, not {getattr(self, name)}")
        if self.linger_s < 0:
            raise ValueError(f"linger_s is 0 or more, not {self.linger_s}")
        require(self.compression)
