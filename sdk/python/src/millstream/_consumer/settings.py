"""How a consumer reads."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.records import Start
from millstream.v1 import pipeline_pb2

_CREDIT_BYTES_MAX = 64 << 20
_FETCH_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """How a consumer reads; every field has a default.

    Raises:
        ValueError: For a value that makes no sense.
    """

    #: Where to begin; as member of a group: where to begin partitions of which nothing was committed.
    start: Start = Start.EARLIEST
    #: Whether reading ends at the high watermarks found at the start. Not in a group.
    stop_at_end: bool = False
    #: Encoded bytes that are read ahead; 64 MiB at most.
    prefetch_bytes: int = 8 << 20
    #: Bound on the encoded bytes of one answer, though a whole batch always comes; 16 MiB at most.
    fetch_bytes: int = 1 << 20
    #: Whether batches come encoded and are decoded here, which takes work off the agent. It needs the codecs of what was
    #: produced.
    encoded: bool = False
    #: A module that the records go through for this consumer alone, after the topic's fetch pipeline.
    stage: pipeline_pb2.Stage | None = None
    #: How long a connection that breaks is tried again before that is an error.
    reconnect_timeout_s: float = 120.0
    #: How often a member of a group commits what it has handed out, at the next call for records; None: never by itself.
    auto_commit_interval_s: float | None = 5.0
    #: How long after its last heartbeat the agent takes a member for dead: 1 to 600.
    session_timeout_s: float = 30.0
    #: How long a member of a group may ask for nothing before it is taken for one that hangs: it leaves then, others read what
    #: it read, and it joins anew when it asks again.
    max_poll_interval_s: float = 300.0
    #: What the member is called in lists.
    client_id: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.prefetch_bytes <= _CREDIT_BYTES_MAX:
            raise ValueError(f"prefetch_bytes is 1 to {_CREDIT_BYTES_MAX}, not {self.prefetch_bytes}")
        if not 0 < self.fetch_bytes <= _FETCH_BYTES_MAX:
            raise ValueError(f"fetch_bytes is 1 to {_FETCH_BYTES_MAX}, not {self.fetch_bytes}")
        if self.max_poll_interval_s <= 0:
            raise ValueError(f"max_poll_interval_s is above 0, not {self.max_poll_interval_s}")
        if not 1 <= self.session_timeout_s <= 600:
            raise ValueError(f"session_timeout_s is 1 to 600, not {self.session_timeout_s}")
