"""One consumer group that exists in memory alone, of a topic of two partitions; it loses members as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from millstream.v1 import consumer_pb2, group_pb2, group_pb2_grpc

PARTITIONS = (0, 1)


@dataclass
class Member:
    """What one member was told, and what it reads."""

    topic: str
    owned: set[int] = field(default_factory=set)
    assigned: set[int] = field(default_factory=set)
    generation: int = 0


class FakeGroups(group_pb2_grpc.GroupServiceServicer):
    """The part of GroupService that members call."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.committed: dict[int, int] = {}
        self.commits: list[dict[int, int]] = []
        #: Commits that are refused as late ones.
        self.stale = 0
        #: Somebody asked to leave; nobody is let go while they may not.
        self.leaving, self.may_leave = threading.Event(), threading.Event()
        self.may_leave.set()
        self._generation = 0
        self._joined = 0
        self._lock = threading.RLock()
        self._left = threading.Condition(self._lock)

    def lose(self) -> None:
        """All sessions are over."""
        with self._lock:
            self.members.clear()

    def wait_until(self, holds: Callable[[dict[str, Member]], bool]) -> None:
        """Waits for members to leave."""
        with self._left:
            assert self._left.wait_for(lambda: holds(self.members), 30), "the state did not come"

    def Heartbeat(  # noqa: N802
        self, request: group_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> group_pb2.HeartbeatResponse:
        with self._lock:
            member_id = request.member_id
            if not member_id:
                self._joined += 1
                member_id = f"member-{self._joined}"
                self.members[member_id] = Member(request.topics[0])
            member = self._member(member_id, context)
            member.owned = {one.partition for one in request.owned}
            self._share(member_id, member)
            assigned = [consumer_pb2.TopicPartition(topic=member.topic, partition=one) for one in sorted(member.assigned)]
            return group_pb2.HeartbeatResponse(
                member_id=member_id, generation=member.generation, assigned=assigned, heartbeat_interval_ms=20
            )

    def _share(self, member_id: str, member: Member) -> None:
        others = [other for other in self.members.values() if other is not member]
        rank = sorted(self.members).index(member_id)
        target = {one for one in PARTITIONS if one % len(self.members) == rank}
        held = {one for other in others for one in other.owned | other.assigned}
        assigned = target - held | (target & member.assigned)
        if assigned != member.assigned:
            self._generation += 1
        member.assigned, member.generation = assigned, self._generation

    def LeaveGroup(  # noqa: N802
        self, request: group_pb2.LeaveGroupRequest, context: grpc.ServicerContext
    ) -> group_pb2.LeaveGroupResponse:
        self.leaving.set()
        self.may_leave.wait(30)
        with self._lock:
            # Who gives up the call is not taken at its word.
            if context.is_active():
                self.members.pop(request.member_id, None)
            self._left.notify_all()
        return group_pb2.LeaveGroupResponse()

    def CommitOffsets(  # noqa: N802
        self, request: group_pb2.CommitOffsetsRequest, context: grpc.ServicerContext
    ) -> group_pb2.CommitOffsetsResponse:
        with self._lock:
            member = self._member(request.member_id, context)
            if self.stale or request.generation != member.generation:
                self.stale = max(self.stale - 1, 0)
                self._generation += 1
                _abort(context, "GENERATION_STALE")
            offsets = {one.partition: one.offset for one in request.offsets}
            self.committed.update(offsets)
            self.commits.append(offsets)
        return group_pb2.CommitOffsetsResponse()

    def FetchOffsets(  # noqa: N802
        self, request: group_pb2.FetchOffsetsRequest, context: grpc.ServicerContext
    ) -> group_pb2.FetchOffsetsResponse:
        with self._lock:
            wanted = {one.partition: one.topic for one in request.partitions}
            offsets = [
                group_pb2.CommittedOffset(topic=topic, partition=partition, offset=self.committed[partition])
                for partition, topic in wanted.items()
                if partition in self.committed
            ]
        return group_pb2.FetchOffsetsResponse(offsets=offsets)

    def _member(self, member_id: str, context: grpc.ServicerContext) -> Member:
        member = self.members.get(member_id)
        if member is None:
            _abort(context, "MEMBER_UNKNOWN")
        assert member is not None, "abort raises"
        return member


def _abort(context: grpc.ServicerContext, reason: str) -> None:
    """Ends a call as an agent does, with the reason in the details."""
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="millstream.v1"))
    status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message=reason, details=[packed])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.ABORTED, reason)
