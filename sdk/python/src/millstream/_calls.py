"""The calls of administration: what each asks, and what of its answer the caller gets. Both kinds of Admin use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from millstream._connection import Call
from millstream.records import Start, TopicPartition
from millstream.v1 import (
    cluster_pb2,
    consumer_pb2,
    group_pb2,
    module_pb2,
    pipeline_pb2,
    topic_pb2,
)

Side = Literal["produce", "fetch"]
OnError = Literal["reject", "skip", "dead-letter", "pass", "halt"]

_SIDES = {"produce": pipeline_pb2.PIPELINE_SIDE_PRODUCE, "fetch": pipeline_pb2.PIPELINE_SIDE_FETCH}
_ON_ERROR = {
    "reject": pipeline_pb2.ON_ERROR_REJECT,
    "skip": pipeline_pb2.ON_ERROR_SKIP,
    "dead-letter": pipeline_pb2.ON_ERROR_DEAD_LETTER,
    "pass": pipeline_pb2.ON_ERROR_PASS,
    "halt": pipeline_pb2.ON_ERROR_HALT,
}


def create_topic(
    name: str, partitions: int, config: topic_pb2.TopicConfig | None
) -> Call[topic_pb2.CreateTopicResponse, topic_pb2.Topic]:
    request = topic_pb2.CreateTopicRequest(name=name, partitions=partitions, config=config)
    return Call("TopicService/CreateTopic", request, topic_pb2.CreateTopicResponse, lambda answer: answer.topic)


def topics() -> Call[topic_pb2.ListTopicsResponse, list[topic_pb2.Topic]]:
    request = topic_pb2.ListTopicsRequest()
    return Call("TopicService/ListTopics", request, topic_pb2.ListTopicsResponse, lambda answer: list(answer.topics))


def topic(name: str, flush: bool) -> Call[topic_pb2.GetTopicResponse, topic_pb2.GetTopicResponse]:
    request = topic_pb2.GetTopicRequest(name=name, flush=flush)
    return Call("TopicService/GetTopic", request, topic_pb2.GetTopicResponse, lambda answer: answer)


def alter_topic(
    name: str, config: topic_pb2.TopicConfig | None, partitions: int | None
) -> Call[topic_pb2.AlterTopicResponse, topic_pb2.Topic]:
    request = topic_pb2.AlterTopicRequest(name=name, config=config, partitions=partitions)
    return Call("TopicService/AlterTopic", request, topic_pb2.AlterTopicResponse, lambda answer: answer.topic)


def truncate_topic(name: str, partition: int, before_offset: int) -> Call[topic_pb2.TruncateTopicResponse, int]:
    request = topic_pb2.TruncateTopicRequest(name=name, partition=partition, before_offset=before_offset)
    answer = topic_pb2.TruncateTopicResponse
    return Call("TopicService/TruncateTopic", request, answer, lambda answer: answer.log_start_offset)


def delete_topic(name: str) -> Call[topic_pb2.DeleteTopicResponse, None]:
    request = topic_pb2.DeleteTopicRequest(name=name)
    return Call("TopicService/DeleteTopic", request, topic_pb2.DeleteTopicResponse, lambda _: None)


def offsets(
    topic: str, partition: int, timestamp_ms: int | None
) -> Call[consumer_pb2.ListOffsetsResponse, consumer_pb2.ListOffsetsResponse]:
    request = consumer_pb2.ListOffsetsRequest(topic=topic, partition=partition, timestamp_ms=timestamp_ms)
    return Call("ConsumerService/ListOffsets", request, consumer_pb2.ListOffsetsResponse, lambda answer: answer)


def deploy_module(
    name: str, component: bytes, trial: module_pb2.ModuleTrial | None
) -> Call[module_pb2.DeployModuleResponse, module_pb2.DeployModuleResponse]:
    request = module_pb2.DeployModuleRequest(name=name, component=component, trial=trial)
    return Call("ModuleService/DeployModule", request, module_pb2.DeployModuleResponse, lambda answer: answer)


def modules() -> Call[module_pb2.ListModulesResponse, list[module_pb2.ModuleVersion]]:
    request = module_pb2.ListModulesRequest()
    return Call("ModuleService/ListModules", request, module_pb2.ListModulesResponse, lambda answer: list(answer.modules))


def promote_module(name: str) -> Call[module_pb2.PromoteModuleResponse, module_pb2.PromoteModuleResponse]:
    request = module_pb2.PromoteModuleRequest(name=name)
    return Call("ModuleService/PromoteModule", request, module_pb2.PromoteModuleResponse, lambda answer: answer)


def rollback_module(name: str, version: int) -> Call[module_pb2.RollbackModuleResponse, module_pb2.RollbackModuleResponse]:
    request = module_pb2.RollbackModuleRequest(name=name, version=version)
    return Call("ModuleService/RollbackModule", request, module_pb2.RollbackModuleResponse, lambda answer: answer)


def pipeline(topic: str) -> Call[pipeline_pb2.GetPipelineResponse, pipeline_pb2.GetPipelineResponse]:
    request = pipeline_pb2.GetPipelineRequest(topic=topic)
    return Call("PipelineService/GetPipeline", request, pipeline_pb2.GetPipelineResponse, lambda answer: answer)


def add_stage(
    topic: str,
    side: Side,
    module: str,
    version: int,
    params: Mapping[str, str] | None,
    on_error: OnError | None,
    position: int | None,
) -> Call[pipeline_pb2.AddStageResponse, pipeline_pb2.Pipeline]:
    policy = pipeline_pb2.ON_ERROR_UNSPECIFIED if on_error is None else _ON_ERROR[on_error]
    stage = pipeline_pb2.Stage(module=module, version=version, params=params, on_error=policy)
    request = pipeline_pb2.AddStageRequest(topic=topic, side=_SIDES[side], stage=stage, position=position)
    return Call("PipelineService/AddStage", request, pipeline_pb2.AddStageResponse, lambda answer: answer.pipeline)


def remove_stage(topic: str, side: Side, position: int) -> Call[pipeline_pb2.RemoveStageResponse, pipeline_pb2.Pipeline]:
    request = pipeline_pb2.RemoveStageRequest(topic=topic, side=_SIDES[side], position=position)
    return Call("PipelineService/RemoveStage", request, pipeline_pb2.RemoveStageResponse, lambda answer: answer.pipeline)


def pause_pipeline(topic: str, side: Side) -> Call[pipeline_pb2.PausePipelineResponse, pipeline_pb2.Pipeline]:
    request = pipeline_pb2.PausePipelineRequest(topic=topic, side=_SIDES[side])
    return Call("PipelineService/PausePipeline", request, pipeline_pb2.PausePipelineResponse, lambda answer: answer.pipeline)


def resume_pipeline(topic: str, side: Side) -> Call[pipeline_pb2.ResumePipelineResponse, pipeline_pb2.Pipeline]:
    request = pipeline_pb2.ResumePipelineRequest(topic=topic, side=_SIDES[side])
    answer = pipeline_pb2.ResumePipelineResponse
    return Call("PipelineService/ResumePipeline", request, answer, lambda answer: answer.pipeline)


def groups() -> Call[group_pb2.ListGroupsResponse, list[group_pb2.GroupSummary]]:
    request = group_pb2.ListGroupsRequest()
    return Call("GroupService/ListGroups", request, group_pb2.ListGroupsResponse, lambda answer: list(answer.groups))


def group(name: str) -> Call[group_pb2.GetGroupResponse, group_pb2.GetGroupResponse]:
    request = group_pb2.GetGroupRequest(name=name)
    return Call("GroupService/GetGroup", request, group_pb2.GetGroupResponse, lambda answer: answer)


def reset_group(
    name: str, to: Start, topics: Sequence[str], partitions: Sequence[tuple[str, int]], dry_run: bool
) -> Call[group_pb2.ResetGroupResponse, dict[TopicPartition, int]]:
    request = group_pb2.ResetGroupRequest(group=name, topics=topics, to=_position(to), dry_run=dry_run)
    for topic, partition in partitions:
        request.partitions.add(topic=topic, partition=partition)
    return Call(
        "GroupService/ResetGroup",
        request,
        group_pb2.ResetGroupResponse,
        lambda answer: {TopicPartition(one.topic, one.partition): one.offset for one in answer.offsets},
    )


def delete_group(name: str) -> Call[group_pb2.DeleteGroupResponse, None]:
    request = group_pb2.DeleteGroupRequest(name=name)
    return Call("GroupService/DeleteGroup", request, group_pb2.DeleteGroupResponse, lambda _: None)


def agents() -> Call[cluster_pb2.ListAgentsResponse, list[cluster_pb2.Agent]]:
    request = cluster_pb2.ListAgentsRequest()
    return Call("ClusterService/ListAgents", request, cluster_pb2.ListAgentsResponse, lambda answer: list(answer.agents))


def _position(start: Start) -> consumer_pb2.StartPosition:
    match start.kind:
        case "earliest":
            return consumer_pb2.StartPosition(earliest=True)
        case "latest":
            return consumer_pb2.StartPosition(latest=True)
        case "timestamp":
            return consumer_pb2.StartPosition(timestamp_ms=start.at)
        case _:
            return consumer_pb2.StartPosition(offset=start.at)
