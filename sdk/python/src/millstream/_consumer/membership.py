"""A member of a consumer group: what it was told to read, and what it reads.

What an answer adds or takes away becomes so only between two records that are handed out: the caller may be at work on the
last one. Until then `owned` stays as it was, and nobody else is given what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream._connection import Call
from millstream._consumer.settings import ConsumerSettings
from millstream.errors import AbortedError, MillstreamError
from millstream.records import TopicPartition
from millstream.v1 import group_pb2

_MEMBER_UNKNOWN = "MEMBER_UNKNOWN"
_GENERATION_STALE = "GENERATION_STALE"


class Membership:
    """The state of one member. A driver that has threads holds its lock during every call."""

    def __init__(self, group: str, topics: Sequence[str], settings: ConsumerSettings) -> None:
        self.group = group
        self.owned: set[TopicPartition] = set()
        #: The session was over: nothing is owned any more, whatever it was.
        self.lost = False
        self.heartbeat_interval_s = settings.session_timeout_s / 3
        self._topics = list(topics)
        self._settings = settings
        self._member_id = ""
        #: The last that the group told.
        self.generation = 0
        self._assigned: set[TopicPartition] = set()

    def heartbeat(self) -> Call[group_pb2.HeartbeatResponse, group_pb2.HeartbeatResponse]:
        """The next heartbeat; the first one joins."""
        joins = not self._member_id
        request = group_pb2.HeartbeatRequest(
            group=self.group,
            member_id=self._member_id,
            generation=self.generation,
            client_id=self._settings.client_id if joins else "",
            topics=self._topics if joins else (),
            session_timeout_ms=int(self._settings.session_timeout_s * 1000) if joins else 0,
        )
        for topic, partition in sorted(self.owned):
            request.owned.add(topic=topic, partition=partition)
        return Call("GroupService/Heartbeat", request, group_pb2.HeartbeatResponse, lambda answer: answer)

    def told(self, answer: group_pb2.HeartbeatResponse) -> None:
        """What the group says."""
        self._member_id, self.generation = answer.member_id, answer.generation
        self._assigned = {TopicPartition(one.topic, one.partition) for one in answer.assigned}
        self.heartbeat_interval_s = answer.heartbeat_interval_ms / 1000

    def refused(self, error: MillstreamError) -> bool:
        """Whether to join anew at once; what was owned is lost then."""
        if not (isinstance(error, AbortedError) and error.reason == _MEMBER_UNKNOWN):
            return False
        self.lose()
        return True

    def lose(self) -> None:
        """This is no member any more, and owns nothing; the next heartbeat joins."""
        self._member_id, self.generation = "", 0
        self._assigned, self.owned = set(), set()
        self.lost = True

    def is_behind(self, error: MillstreamError) -> bool:
        """Whether a commit was refused because the answer to a heartbeat is on its way still."""
        return error.reason == _GENERATION_STALE

    def changes(self) -> bool:
        """Whether something is to be taken up or given up."""
        return self.lost or self._assigned != self.owned

    def revoked(self) -> list[TopicPartition]:
        """What is to be given up."""
        return sorted(self.owned - self._assigned)

    def gained(self) -> list[TopicPartition]:
        """What is to be taken up."""
        return sorted(self._assigned - self.owned)

    def commit(
        self, offsets: Mapping[TopicPartition, int], metadata: str
    ) -> Call[group_pb2.CommitOffsetsResponse, group_pb2.CommitOffsetsResponse]:
        """The call that stores how far the group has read.

        Raises:
            AbortedError: Where this is no member now: without an id it would be somebody from outside who commits.
        """
        if not self._member_id:
            raise AbortedError(f"this is no member of group {self.group!r} any more", reason=_MEMBER_UNKNOWN)
        request = group_pb2.CommitOffsetsRequest(group=self.group, member_id=self._member_id, generation=self.generation)
        for (topic, partition), offset in offsets.items():
            request.offsets.add(topic=topic, partition=partition, offset=offset, metadata=metadata)
        return Call("GroupService/CommitOffsets", request, group_pb2.CommitOffsetsResponse, lambda answer: answer)

    def committed(self, places: Sequence[TopicPartition]) -> Call[group_pb2.FetchOffsetsResponse, dict[TopicPartition, int]]:
        """The call that tells what was committed; where nothing was there is no entry."""
        request = group_pb2.FetchOffsetsRequest(group=self.group)
        for topic, partition in places:
            request.partitions.add(topic=topic, partition=partition)
        return Call(
            "GroupService/FetchOffsets",
            request,
            group_pb2.FetchOffsetsResponse,
            lambda answer: {TopicPartition(one.topic, one.partition): one.offset for one in answer.offsets},
        )

    def leave(self) -> Call[group_pb2.LeaveGroupResponse, None] | None:
        """The call that leaves; None where the group was never joined."""
        if not self._member_id:
            return None
        request = group_pb2.LeaveGroupRequest(group=self.group, member_id=self._member_id)
        return Call("GroupService/LeaveGroup", request, group_pb2.LeaveGroupResponse, lambda _: None)
