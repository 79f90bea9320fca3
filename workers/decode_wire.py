"""What the decoding process says to the worker, over one pipe.

A message is a kind (one byte), a length (four bytes, big endian) and a payload:

    INFO   JSON   once, before the first frame: the video and the size and number of frames that follow
    FRAME  f64 timestamp in seconds, then height x width x 3 bytes of RGB
    DONE   empty  every frame was sent
    ERROR  JSON   {"code", "message"}: nothing follows
"""

import json
import struct
from enum import Enum
from typing import Any, BinaryIO

_HEADER = struct.Struct(">cI")
TIMESTAMP = struct.Struct(">d")
HEADER_BYTES = _HEADER.size


class Kind(Enum):
    """The first byte of a message."""

    INFO = b"I"
    FRAME = b"F"
    DONE = b"D"
    ERROR = b"E"


def send(stream: BinaryIO, kind: Kind, *parts: bytes | memoryview) -> None:
    """Write one message and flush it."""
    stream.write(_HEADER.pack(kind.value, sum(len(part) for part in parts)))
    for part in parts:
        stream.write(part)
    stream.flush()


def send_json(stream: BinaryIO, kind: Kind, payload: dict[str, Any]) -> None:
    """Write one message whose payload is JSON."""
    send(stream, kind, json.dumps(payload).encode())


def read_header(header: bytes) -> tuple[Kind, int]:
    """(kind, payload length) of a message.

    Raises:
        ValueError: if the first byte is no kind of message.
    """
    kind, length = _HEADER.unpack(header)
    return Kind(kind), length
