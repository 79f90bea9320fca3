"""What worker and decoding process say to each other, over one socket.

A message is a kind (one byte), a length (four bytes, big endian) and a payload:

    REQUEST  JSON   worker: what is wanted; the process reads nothing else before it
    INFO     JSON   process, before its first frame: the video, and the size and number of frames that follow
    MEMORY   empty  worker: the answer to INFO; the descriptor of the frames' memory travels with its first byte
    FRAME    f64    process: the next frame is in the memory; the payload is its timestamp in seconds
    DONE     empty  process: every frame is in the memory
    ERROR    JSON   process: {"code", "message"}; nothing follows
    SANDBOX  JSON   process: the layers of its sandbox that it lacks and why. To a REQUEST without a demuxer it is the
                    answer; otherwise it comes first, and only where a layer is missing. Nothing follows where the
                    REQUEST's limits require all of them
"""

import json
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any

_HEADER = struct.Struct(">cI")
TIMESTAMP = struct.Struct(">d")
HEADER_BYTES = _HEADER.size

START, END_ALL = b"+", b"-"
"""What the worker asks the server of the processes for, a byte each."""
PROCESS_DESCRIPTORS = 4
"""What a process is started with: video, link, pipe for its last words, leash."""
STATUS = struct.Struct(">i")
"""An exit status as it comes up a leash."""

FULL_TURN = 360
"""Degrees: no video says that it is to be turned by more."""


class Kind(Enum):
    """The first byte of a message."""

    REQUEST = b"R"
    INFO = b"I"
    MEMORY = b"M"
    FRAME = b"F"
    DONE = b"D"
    ERROR = b"E"
    SANDBOX = b"S"


@dataclass(frozen=True)
class VideoInfo:
    """What INFO says. The first six describe the file; `count` frames of `frame_height` x `frame_width` follow."""

    width: int
    height: int
    fps: float
    duration_s: float
    frame_count: int
    rotation: int
    count: int
    frame_height: int
    frame_width: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one packed RGB frame."""
        return self.frame_height * self.frame_width * 3


def send(link: socket.socket, kind: Kind, payload: bytes = b"") -> None:
    """Write one message."""
    link.sendall(_HEADER.pack(kind.value, len(payload)) + payload)


def send_json(link: socket.socket, kind: Kind, payload: dict[str, Any]) -> None:
    """Write one message whose payload is JSON."""
    send(link, kind, json.dumps(payload).encode())


def send_descriptor(link: socket.socket, kind: Kind, descriptor: int) -> None:
    """Write one message without a payload, and an open file with it."""
    socket.send_fds(link, [_HEADER.pack(kind.value, 0)], [descriptor])


def receive_json(link: socket.socket, kind: Kind) -> dict[str, Any]:
    """Wait for one message of this kind.

    Raises:
        ValueError: if something else came.
    """
    header = link.recv(HEADER_BYTES, socket.MSG_WAITALL)
    if len(header) < HEADER_BYTES or _HEADER.unpack(header)[0] != kind.value:
        raise ValueError("the link brought something else than was waited for")
    return json.loads(link.recv(_HEADER.unpack(header)[1], socket.MSG_WAITALL))


def receive_descriptor(link: socket.socket, kind: Kind) -> int:
    """Wait for one message of this kind and the open file that comes with it.

    Raises:
        ValueError: if something else came.
    """
    header, descriptors, _, _ = socket.recv_fds(link, HEADER_BYTES, 1)
    if header != _HEADER.pack(kind.value, 0) or len(descriptors) != 1:
        raise ValueError("the link brought something else than was waited for")
    return descriptors[0]


def read_header(header: bytes) -> tuple[Kind, int]:
    """(kind, payload length) of a message.

    Raises:
        ValueError: if the first byte is no kind of message.
    """
    kind, length = _HEADER.unpack(header)
    return Kind(kind), length
