"""Administration, for asyncio: one method a call. The messages it takes and gives are those of `millstream.v1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from millstream import _calls
from millstream._calls import OnError, Side
from millstream._connection import AsyncConnection
from millstream.records import Start, TopicPartition
from millstream.v1 import cluster_pb2, consumer_pb2, group_pb2, module_pb2, pipeline_pb2, topic_pb2


class AsyncAdmin:
    """Administers an agent. Every method raises a `MillstreamError`; the proto of its call names the codes.

    async with AsyncAdmin("http://127.0.0.1:7070") as admin:
        await admin.create_topic("orders", partitions=3)
    """

    def __init__(self, server: str | None = None) -> None:
        self._connection = AsyncConnection(server)

    async def create_topic(
        self, name: str, partitions: int = 1, config: topic_pb2.TopicConfig | None = None
    ) -> topic_pb2.Topic:
        """Makes a topic; what `config` leaves out is the agent's default."""
        return await self._connection.call(_calls.create_topic(name, partitions, config))

    async def topics(self) -> list[topic_pb2.Topic]:
        """All topics, in order of name."""
        return await self._connection.call(_calls.topics())

    async def topic(self, name: str, *, flush: bool = False) -> topic_pb2.GetTopicResponse:
        """One topic and its partitions. With `flush` what is only in the write-ahead log goes into segments first."""
        return await self._connection.call(_calls.topic(name, flush))

    async def alter_topic(
        self, name: str, config: topic_pb2.TopicConfig | None = None, *, partitions: int | None = None
    ) -> topic_pb2.Topic:
        """Changes settings of a topic, and gives it more partitions; what is left out stays."""
        return await self._connection.call(_calls.alter_topic(name, config, partitions))

    async def truncate_topic(self, name: str, partition: int, before_offset: int) -> int:
        """Lets go of what is below an offset; the first offset that can be read then."""
        return await self._connection.call(_calls.truncate_topic(name, partition, before_offset))

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic with its records."""
        await self._connection.call(_calls.delete_topic(name))

    async def offsets(self, topic: str, partition: int, timestamp_ms: int | None = None) -> consumer_pb2.ListOffsetsResponse:
        """The ends between which a partition can be read, and with a time the first record of then or later."""
        return await self._connection.call(_calls.offsets(topic, partition, timestamp_ms))

    async def deploy_module(
        self, name: str, component: bytes, trial: module_pb2.ModuleTrial | None = None
    ) -> module_pb2.DeployModuleResponse:
        """Stores a component as the module's next version, which becomes current unless it is on trial."""
        return await self._connection.call(_calls.deploy_module(name, component, trial))

    async def modules(self) -> list[module_pb2.ModuleVersion]:
        """Every version of every module."""
        return await self._connection.call(_calls.modules())

    async def promote_module(self, name: str) -> module_pb2.PromoteModuleResponse:
        """Makes the version current that is on trial."""
        return await self._connection.call(_calls.promote_module(name))

    async def rollback_module(self, name: str, version: int = 0) -> module_pb2.RollbackModuleResponse:
        """Goes back to a version; without one to what the current one replaced."""
        return await self._connection.call(_calls.rollback_module(name, version))

    async def pipeline(self, topic: str) -> pipeline_pb2.GetPipelineResponse:
        """The pipeline of a topic, and how its stages fare."""
        return await self._connection.call(_calls.pipeline(topic))

    async def add_stage(
        self,
        topic: str,
        side: Side,
        module: str,
        *,
        version: int = 0,
        params: Mapping[str, str] | None = None,
        on_error: OnError | None = None,
        position: int | None = None,
    ) -> pipeline_pb2.Pipeline:
        """Adds a stage, behind all others unless a position is given. Version 0 follows the current one."""
        return await self._connection.call(_calls.add_stage(topic, side, module, version, params, on_error, position))

    async def remove_stage(self, topic: str, side: Side, position: int) -> pipeline_pb2.Pipeline:
        """Removes a stage."""
        return await self._connection.call(_calls.remove_stage(topic, side, position))

    async def pause_pipeline(self, topic: str, side: Side) -> pipeline_pb2.Pipeline:
        """Refuses every request to one side of a topic."""
        return await self._connection.call(_calls.pause_pipeline(topic, side))

    async def resume_pipeline(self, topic: str, side: Side) -> pipeline_pb2.Pipeline:
        """Ends a pause, and lets partitions go on that halted."""
        return await self._connection.call(_calls.resume_pipeline(topic, side))

    async def groups(self) -> list[group_pb2.GroupSummary]:
        """All consumer groups, in order of name."""
        return await self._connection.call(_calls.groups())

    async def group(self, name: str) -> group_pb2.GetGroupResponse:
        """One group: its members, what it has committed, and how far it is behind."""
        return await self._connection.call(_calls.group(name))

    async def reset_group(
        self,
        name: str,
        to: Start,
        *,
        topics: Sequence[str] = (),
        partitions: Sequence[tuple[str, int]] = (),
        dry_run: bool = False,
    ) -> dict[TopicPartition, int]:
        """Moves what a group without members has committed: of some topics or partitions, else everything."""
        return await self._connection.call(_calls.reset_group(name, to, topics, partitions, dry_run))

    async def delete_group(self, name: str) -> None:
        """Forgets a group without members."""
        await self._connection.call(_calls.delete_group(name))

    async def agents(self) -> list[cluster_pb2.Agent]:
        """All agents of the installation, and which of them answers."""
        return await self._connection.call(_calls.agents())

    async def close(self) -> None:
        """Ends the connection."""
        await self._connection.close()

    async def __aenter__(self) -> AsyncAdmin:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
