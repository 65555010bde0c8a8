"""What can go wrong, with the facts that are needed to act on it.

Everything raised on behalf of an agent is a `MillstreamError`; its subclasses are the cases that programs tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from millstream.v1 import error_pb2

DOMAIN = "millstream.v1"
_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
#: Codes that the transport gives on its own when a connection breaks under a call.
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that a module refused."""

    #: Its place in the batch, from 0.
    index: int
    #: The module's reason.
    reason: str


class MillstreamError(Exception):
    """A request that failed.

    `code` is the gRPC code, `reason` a stable word in UPPER_SNAKE_CASE, empty where the agent did not answer.
    `retry_after_s` says when the same may be tried again; None where that does not help. `facts` has what the agent says
    beside the message, by name.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        retry_after_s: float | None = None,
        rejected: tuple[Rejected, ...] = (),
        facts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.rejected = rejected
        self.facts = dict(facts or {})

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.retry_after_s is not None


class UnavailableError(MillstreamError):
    """No agent answers, or the one that did cannot serve the request now."""


class InvalidArgumentError(MillstreamError):
    """The request is wrong, and fails again the same way."""


class RecordsRejectedError(InvalidArgumentError):
    """A module refused records of a batch, so nothing of the batch was stored; `rejected` says which and why.

    As the error of one record `index` is its own place in the batch.
    """

    index: int | None = None

    @property
    def own_reason(self) -> str | None:
        """Why the module refused this very record; None for one that only shared the batch, or that is not listed."""
        return next((one.reason for one in self.rejected if one.index == self.index), None)


class NotFoundError(MillstreamError):
    """There is no such topic, module, group or the like."""


class AlreadyExistsError(MillstreamError):
    """The name is taken."""


class FailedPreconditionError(MillstreamError):
    """The state of what is asked for does not allow it."""


class ProducerFencedError(FailedPreconditionError):
    """Another producer took this one's name or id; this one sends nothing any more."""


class AbortedError(MillstreamError):
    """Something else came in between, or a module failed."""


class OutOfRangeError(MillstreamError):
    """The offset cannot be read: it is below the log start or beyond the high watermark."""


class ExhaustedError(MillstreamError):
    """A bound of the agent is met; nothing of the request was done."""


class DeliveryTimeoutError(MillstreamError):
    """A record was not acknowledged in time. It may or may not be stored."""


class BufferFullError(MillstreamError):
    """The producer's buffer stayed full for too long; the record was not taken."""


class ClosedError(MillstreamError):
    """The client was closed before, or while, it was asked."""


class BadAnswerError(MillstreamError):
    """Bytes that are no record batch, or an answer that breaks the protocol."""


_BY_CODE: dict[grpc.StatusCode, type[MillstreamError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
}
_BY_REASON: dict[str, type[MillstreamError]] = {
    "RECORDS_REJECTED": RecordsRejectedError,
    "PRODUCER_FENCED": ProducerFencedError,
}


def from_message(error: error_pb2.Error) -> MillstreamError:
    """The error of one of several things."""
    return _make(
        error.message,
        code=_CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        reason=error.reason,
        retry_after_s=error.retry_after_ms / 1000 if error.HasField("retry_after_ms") else None,
        rejected=tuple(Rejected(one.index, one.reason) for one in error.rejected),
    )


def from_call(error: grpc.RpcError, server: str) -> MillstreamError:
    """The error of a whole call. Only what an agent says carries details; everything else is the transport's."""
    code = error.code()
    details = error.details() or ""
    status = _status(error)
    if status is None:
        return _of_transport(code, details, server)
    info, retry, refusal = _details(status)
    return _make(
        details or status.message,
        code=code,
        reason=info.reason,
        retry_after_s=retry,
        rejected=tuple(_rejected(refusal)),
        facts=info.metadata,
    )


def _make(message: str, *, code: grpc.StatusCode, reason: str, **facts: Any) -> MillstreamError:
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, MillstreamError)
    return kind(message or f"the agent answered {code.name} without a message", code=code, reason=reason, **facts)


def _of_transport(code: grpc.StatusCode, details: str, server: str) -> MillstreamError:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnavailableError(f"the agent at {server} did not answer in time", code=code, retry_after_s=0.0)
    if code in _BROKEN:
        message = f"no agent answers at {server}, or its connection broke ({details}); start one with `millstream serve`"
        return UnavailableError(message, code=code, retry_after_s=0.0)
    return _make(details, code=code, reason="")


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    # Pairs, whatever the stubs say.
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == _DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None


def _details(
    status: status_pb2.Status,
) -> tuple[error_details_pb2.ErrorInfo, float | None, error_details_pb2.BadRequest]:
    info, retry, refusal = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    retry_after = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(refusal)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return info, retry_after, refusal


def _rejected(refusal: error_details_pb2.BadRequest) -> list[Rejected]:
    """The field violations `records[i]`."""
    found = []
    for violation in refusal.field_violations:
        place = violation.field.removeprefix("records[").removesuffix("]")
        if violation.field == f"records[{place}]" and place.isdecimal():
            found.append(Rejected(int(place), violation.description))
    return found
