"""Uses an agent as a client that knows nothing but the protos: foreign_client.py HOST:PORT FIXTURES"""

import base64
import json
import pathlib
import struct
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as reflection_alpha  # noqa: F401  the messages are the same in v1
from millstream.v1 import (
    consumer_pb2,
    consumer_pb2_grpc,
    producer_pb2,
    producer_pb2_grpc,
    record_pb2,
    topic_pb2,
    topic_pb2_grpc,
)


def refused(code, words, call, request):
    try:
        call(request)
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert words in error.details(), error.details()
    else:
        raise AssertionError(f"{request} was accepted")


def topics(channel):
    service = topic_pb2_grpc.TopicServiceStub(channel)
    request = topic_pb2.CreateTopicRequest(
        name="python",
        partitions=2,
        config=topic_pb2.TopicConfig(retention_ms=3_600_000, compression=topic_pb2.COMPRESSION_ZSTD),
    )
    created = service.CreateTopic(request).topic
    assert (created.name, created.partitions, len(created.id)) == ("python", 2, 16), created
    assert created.config.retention_ms == 3_600_000 and created.config.record_bytes_max == 1 << 20, created
    listed = service.ListTopics(topic_pb2.ListTopicsRequest()).topics
    assert [topic.name for topic in listed] == ["python"], listed
    refused(grpc.StatusCode.ALREADY_EXISTS, "exists already", service.CreateTopic, request)
    refused(grpc.StatusCode.NOT_FOUND, "absent", service.GetTopic, topic_pb2.GetTopicRequest(name="absent"))
    return service


def fetch(consumer, partition, offset, format):
    """What is read of one partition of the topic."""
    wanted = consumer_pb2.FetchPartition(topic="python", partition=partition, offset=offset)
    (part,) = consumer.Fetch(consumer_pb2.FetchRequest(partitions=[wanted], format=format)).partitions
    assert (part.topic, part.partition) == ("python", partition), part
    return part


def plain_records(channel):
    """Null and empty differ, in keys, values and headers."""
    header = record_pb2.Header
    sent = [
        record_pb2.Record(value=b"value", timestamp_ms=1),
        record_pb2.Record(key=b"key", timestamp_ms=2),
        record_pb2.Record(timestamp_ms=3),
        record_pb2.Record(key=b"", value=b"", timestamp_ms=4),
        record_pb2.Record(
            key=b"k",
            value=b"\xff\x00",
            timestamp_ms=5,
            headers=[header(key="h", value=b"1"), header(key="h"), header(key="", value=b""), header(key="ünï")],
        ),
    ]
    producer = producer_pb2_grpc.ProducerServiceStub(channel)
    request = producer_pb2.ProduceRequest(
        topic="python", partition=0, records=record_pb2.RecordList(records=sent), acks=producer_pb2.ACKS_DURABLE
    )
    answer = producer.Produce(request)
    assert (answer.base_offset, answer.record_count, answer.pipeline_version) == (0, 5, 0), answer

    consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)
    fetched = fetch(consumer, 0, 0, consumer_pb2.FETCH_FORMAT_RECORDS)
    assert (fetched.next_offset, fetched.high_watermark, fetched.log_start_offset) == (5, 5, 0), fetched
    for offset, record in enumerate(sent):
        record.offset = offset
    assert list(fetched.records) == sent, fetched.records
    for record in fetched.records:
        assert record.HasField("key") == (record.offset in (1, 3, 4)), record
        assert record.HasField("value") == (record.offset in (0, 3, 4)), record
    assert [h.HasField("value") for h in fetched.records[4].headers] == [True, False, True, False]
    beyond = fetch(consumer, 0, 6, consumer_pb2.FETCH_FORMAT_RECORDS).error
    assert (beyond.code, beyond.reason) == (grpc.StatusCode.OUT_OF_RANGE.value[0], "OFFSET_OUT_OF_RANGE"), beyond
    assert "out of range" in beyond.message, beyond


def encoded_batches(channel, fixtures):
    """What another client wrote goes in as it is and comes out as it is, but for offset and epoch."""
    producer = producer_pb2_grpc.ProducerServiceStub(channel)
    consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)
    offset = 0
    for name in ("one", "headers", "nulls", "time_goes_back", "large_value"):
        batch = (fixtures / f"{name}.bin").read_bytes()
        holds = json.loads((fixtures / f"{name}.json").read_text())
        answer = producer.Produce(producer_pb2.ProduceRequest(topic="python", partition=1, batch=batch))
        assert (answer.base_offset, answer.record_count) == (offset, holds["count"]), answer

        stored = fetch(consumer, 1, offset, consumer_pb2.FETCH_FORMAT_BATCHES).batches
        assert struct.unpack_from(">q", stored)[0] == offset
        # Base offset and leader epoch stand outside of the checksum; everything else is untouched.
        assert stored[8:12] == batch[8:12] and stored[16:] == batch[16:], name

        records = fetch(consumer, 1, offset, consumer_pb2.FETCH_FORMAT_RECORDS).records
        for record, expected in zip(records, holds["records"], strict=True):
            assert text(record, "key") == expected["key"], name
            assert text(record, "value") == expected["value"], name
            assert [[h.key, text(h, "value")] for h in record.headers] == expected["headers"], name
            assert record.timestamp_ms == expected["timestamp"], name
        offset += holds["count"]

    damaged = batch[:-1] + bytes([batch[-1] ^ 1])
    request = producer_pb2.ProduceRequest(topic="python", partition=1, batch=damaged)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "crc", producer.Produce, request)
    # An idempotent producer wrote this one, and others before it, which the agent has never seen.
    request.batch = (fixtures / "thousand_lz4.bin").read_bytes()
    refused(grpc.StatusCode.FAILED_PRECONDITION, "nothing of producer 4242", producer.Produce, request)


def text(message, field):
    return base64.b64encode(getattr(message, field)).decode() if message.HasField(field) else None


def reflection(channel):
    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_alpha.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_alpha.ServerReflectionResponse.FromString,
    )
    answer = next(iter(call(iter([reflection_alpha.ServerReflectionRequest(list_services="")]))))
    names = {service.name for service in answer.list_services_response.service}
    for service in ("TopicService", "ProducerService", "ConsumerService", "ModuleService", "PipelineService"):
        assert f"millstream.v1.{service}" in names, names


def health(channel):
    service = health_pb2_grpc.HealthStub(channel)
    for name in ("", "millstream.v1.ProducerService", "millstream.v1.ConsumerService"):
        status = service.Check(health_pb2.HealthCheckRequest(service=name)).status
        assert status == health_pb2.HealthCheckResponse.SERVING, (name, status)


def main(address, fixtures):
    with grpc.insecure_channel(address) as channel:
        service = topics(channel)
        plain_records(channel)
        encoded_batches(channel, pathlib.Path(fixtures))
        reflection(channel)
        health(channel)
        service.DeleteTopic(topic_pb2.DeleteTopicRequest(name="python"))
        assert not service.ListTopics(topic_pb2.ListTopicsRequest()).topics


if __name__ == "__main__":
    main(*sys.argv[1:])
