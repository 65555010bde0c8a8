"""Administration, for threads: one method a call. The messages it takes and gives are those of `millstream.v1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from millstream import _calls
from millstream._calls import OnError, Side
from millstream._connection import Connection
from millstream.records import Start, TopicPartition
from millstream.v1 import cluster_pb2, consumer_pb2, group_pb2, module_pb2, pipeline_pb2, topic_pb2


class Admin:
    """Administers an agent. Every method raises a `MillstreamError`; the proto of its call names the codes.

    with Admin("http://127.0.0.1:7070") as admin:
        admin.create_topic("orders", partitions=3)
    """

    def __init__(self, server: str | None = None) -> None:
        self._connection = Connection(server)

    def create_topic(self, name: str, partitions: int = 1, config: topic_pb2.TopicConfig | None = None) -> topic_pb2.Topic:
        """Makes a topic; what `config` leaves out is the agent's default."""
        return self._connection.call(_calls.create_topic(name, partitions, config))

    def topics(self) -> list[topic_pb2.Topic]:
        """All topics, in order of name."""
        return self._connection.call(_calls.topics())

    def topic(self, name: str, *, flush: bool = False) -> topic_pb2.GetTopicResponse:
        """One topic and its partitions. With `flush` what is only in the write-ahead log goes into segments first."""
        return self._connection.call(_calls.topic(name, flush))

    def alter_topic(
        self, name: str, config: topic_pb2.TopicConfig | None = None, *, partitions: int | None = None
    ) -> topic_pb2.Topic:
        """Changes settings of a topic, and gives it more partitions; what is left out stays."""
        return self._connection.call(_calls.alter_topic(name, config, partitions))

    def truncate_topic(self, name: str, partition: int, before_offset: int) -> int:
        """Lets go of what is below an offset; the first offset that can be read then."""
        return self._connection.call(_calls.truncate_topic(name, partition, before_offset))

    def delete_topic(self, name: str) -> None:
        """Deletes a topic with its records."""
        self._connection.call(_calls.delete_topic(name))

    def offsets(self, topic: str, partition: int, timestamp_ms: int | None = None) -> consumer_pb2.ListOffsetsResponse:
        """The ends between which a partition can be read, and with a time the first record of then or later."""
        return self._connection.call(_calls.offsets(topic, partition, timestamp_ms))

    def deploy_module(
        self, name: str, component: bytes, trial: module_pb2.ModuleTrial | None = None
    ) -> module_pb2.DeployModuleResponse:
        """Stores a component as the module's next version, which becomes current unless it is on trial."""
        return self._connection.call(_calls.deploy_module(name, component, trial))

    def modules(self) -> list[module_pb2.ModuleVersion]:
        """Every version of every module."""
        return self._connection.call(_calls.modules())

    def promote_module(self, name: str) -> module_pb2.PromoteModuleResponse:
        """Makes the version current that is on trial."""
        return self._connection.call(_calls.promote_module(name))

    def rollback_module(self, name: str, version: int = 0) -> module_pb2.RollbackModuleResponse:
        """Goes back to a version; without one to what the current one replaced."""
        return self._connection.call(_calls.rollback_module(name, version))

    def pipeline(self, topic: str) -> pipeline_pb2.GetPipelineResponse:
        """The pipeline of a topic, and how its stages fare."""
        return self._connection.call(_calls.pipeline(topic))

    def add_stage(
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
        return self._connection.call(_calls.add_stage(topic, side, module, version, params, on_error, position))

    def remove_stage(self, topic: str, side: Side, position: int) -> pipeline_pb2.Pipeline:
        """Removes a stage."""
        return self._connection.call(_calls.remove_stage(topic, side, position))

    def pause_pipeline(self, topic: str, side: Side) -> pipeline_pb2.Pipeline:
        """Refuses every request to one side of a topic."""
        return self._connection.call(_calls.pause_pipeline(topic, side))

    def resume_pipeline(self, topic: str, side: Side) -> pipeline_pb2.Pipeline:
        """Ends a pause, and lets partitions go on that halted."""
        return self._connection.call(_calls.resume_pipeline(topic, side))

    def groups(self) -> list[group_pb2.GroupSummary]:
        """All consumer groups, in order of name."""
        return self._connection.call(_calls.groups())

    def group(self, name: str) -> group_pb2.GetGroupResponse:
        """One group: its members, what it has committed, and how far it is behind."""
        return self._connection.call(_calls.group(name))

    def reset_group(
        self,
        name: str,
        to: Start,
        *,
        topics: Sequence[str] = (),
        partitions: Sequence[tuple[str, int]] = (),
        dry_run: bool = False,
    ) -> dict[TopicPartition, int]:
        """Moves what a group without members has committed: of some topics or partitions, else everything."""
        return self._connection.call(_calls.reset_group(name, to, topics, partitions, dry_run))

    def delete_group(self, name: str) -> None:
        """Forgets a group without members."""
        self._connection.call(_calls.delete_group(name))

    def agents(self) -> list[cluster_pb2.Agent]:
        """All agents of the installation, and which of them answers."""
        return self._connection.call(_calls.agents())

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
