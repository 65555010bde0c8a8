"""What agents say when something fails, as exceptions."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import millstream
from millstream import MillstreamError, Rejected, errors
from millstream._connection import target
from millstream.v1 import error_pb2


class Failure(grpc.RpcError):
    """A call that failed, as gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, details: str, *told: Message) -> None:
        super().__init__(details)
        self._code = code
        self._details = details
        status = status_pb2.Status(code=code.value[0], message=details)
        for message in told:
            packed = any_pb2.Any()
            packed.Pack(message)
            status.details.append(packed)
        self._metadata = [("grpc-status-details-bin", status.SerializeToString())] if told else []

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._metadata


def test_a_status_keeps_its_message_its_facts_its_rejects_and_its_retry_hint() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    failure = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "module a@1 rejected 1 record",
        error_details_pb2.ErrorInfo(reason="RECORDS_REJECTED", domain="millstream.v1", metadata={"module": "a"}),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=250_000_000)),
        error_details_pb2.BadRequest(
            field_violations=[
                violation(field="records[3]", description="no time"),
                violation(field="topic", description="not a record"),
            ]
        ),
    )
    error = errors.from_call(failure, "http://a:1")
    assert isinstance(error, millstream.RecordsRejectedError)
    assert isinstance(error, millstream.InvalidArgumentError)
    assert str(error) == "module a@1 rejected 1 record"
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RECORDS_REJECTED")
    assert (error.retry_after_s, error.retryable) == (0.25, True)
    assert error.rejected == (Rejected(3, "no time"),)
    assert error.facts == {"module": "a"}


def test_an_error_within_an_answer_is_the_same() -> None:
    told = error_pb2.Error(
        code=11,
        reason="OFFSET_OUT_OF_RANGE",
        message="beyond",
        rejected=[error_pb2.RejectedRecord(index=1, reason="why")],
    )
    error = errors.from_message(told)
    assert isinstance(error, millstream.OutOfRangeError)
    assert (str(error), error.retryable, error.rejected) == ("beyond", False, (Rejected(1, "why"),))
    told.retry_after_ms = 0
    assert errors.from_message(told).retry_after_s == 0.0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, millstream.NotFoundError),
        (grpc.StatusCode.ALREADY_EXISTS, millstream.AlreadyExistsError),
        (grpc.StatusCode.FAILED_PRECONDITION, millstream.FailedPreconditionError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, millstream.ExhaustedError),
        (grpc.StatusCode.ABORTED, millstream.AbortedError),
        (grpc.StatusCode.PERMISSION_DENIED, MillstreamError),
    ],
)
def test_each_code_has_its_exception(code: grpc.StatusCode, kind: type[MillstreamError]) -> None:
    info = error_details_pb2.ErrorInfo(reason="ANY", domain="millstream.v1")
    error = errors.from_call(Failure(code, "", info), "http://a:1")
    assert type(error) is kind
    assert code.name in str(error)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN])
def test_a_connection_that_breaks_may_be_tried_again(code: grpc.StatusCode) -> None:
    error = errors.from_call(Failure(code, "Socket closed"), "http://a:1")
    assert isinstance(error, millstream.UnavailableError)
    assert error.retryable
    assert "http://a:1" in str(error)
    assert "millstream serve" in str(error)


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ("http://127.0.0.1:7070", "127.0.0.1:7070"),
        ("http://[::1]:7070/", "[::1]:7070"),
        ("host:1", "host:1"),
    ],
)
def test_addresses_are_taken_with_and_without_scheme(server: str, found: str) -> None:
    assert target(server) == (f"http://{found}", found)


@pytest.mark.parametrize("server", ["https://example.org", "http://", "http://a:1/path"])
def test_what_is_no_address_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="no server address"):
        target(server)


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_SERVER", "http://elsewhere:9")
    assert target(None)[1] == "elsewhere:9"
    monkeypatch.delenv("MILLSTREAM_SERVER")
    assert target(None)[1] == "127.0.0.1:7070"
