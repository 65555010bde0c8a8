"""The codecs of a batch: LZ4 frames and Zstandard, each where its extra is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from millstream.errors import BadAnswerError
from millstream.records import Compression

#: Bound on the records of one batch once they are decompressed, the same as the agent's.
DECOMPRESSED_BYTES_MAX = 64 << 20
_MODULES = {Compression.LZ4: ("lz4.frame", "lz4"), Compression.ZSTD: ("zstandard", "zstd")}


def require(codec: Compression) -> None:
    """Fails where a codec cannot be used here."""
    if codec is not Compression.NONE:
        _module(codec)


def compress(codec: Compression, records: bytes) -> bytes:
    """One frame of the codec."""
    if codec is Compression.NONE:
        return records
    module = _module(codec)
    if codec is Compression.LZ4:
        compressed: bytes = module.compress(records)
    else:
        compressed = module.ZstdCompressor().compress(records)
    return compressed


def decompress(codec: Compression, data: bytes) -> bytes:
    """The records of one frame.

    Raises:
        BadAnswerError: For what is no whole frame, or holds more than a batch may.
    """
    if codec is Compression.NONE:
        return data
    module = _module(codec)
    failure: type[Exception] = RuntimeError if codec is Compression.LZ4 else module.ZstdError
    try:
        records = _lz4(module, data) if codec is Compression.LZ4 else _zstd(module, data)
    except failure as error:
        raise BadAnswerError(f"the records do not decompress: {error}") from error
    if records is None:
        raise BadAnswerError(f"the records are cut short, or more than {DECOMPRESSED_BYTES_MAX} bytes decompressed")
    return records


def _lz4(module: Any, data: bytes) -> bytes | None:
    decompressor = module.LZ4FrameDecompressor()
    records: bytes = decompressor.decompress(data, DECOMPRESSED_BYTES_MAX)
    return records if decompressor.eof else None


def _zstd(module: Any, data: bytes) -> bytes | None:
    with module.ZstdDecompressor().stream_reader(data) as reader:
        records: bytes = reader.read(DECOMPRESSED_BYTES_MAX + 1)
    return records if len(records) <= DECOMPRESSED_BYTES_MAX else None


def _module(codec: Compression) -> Any:
    name, extra = _MODULES[codec]
    try:
        return import_module(name)
    except ImportError as error:
        message = f"{codec.name} needs a package that is not installed: pip install 'millstream[{extra}]'"
        raise ModuleNotFoundError(message, name=name) from error
