"""How a stranger's video is opened: one demuxer, one stream of it, one of a few codecs, and nothing else of the file.

FFmpeg reads the video through one open descriptor. It is never given a name or an address, and a demuxer that asks
for another file is refused: by us, by its own list of protocols, which is empty, and by the kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

import av

# PyAV looks for these when it opens a video, where there are no files any more.
import av.audio.codeccontext
import av.audio.stream
import av.subtitles.codeccontext
import av.subtitles.stream
import av.video.codeccontext
import av.video.stream
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from workers.decode_timeline import Undecodable
from workers.frame_plan import DecodeLimits

CODECS = frozenset(
    ("h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "prores")
)
"""What is decoded, by FFmpeg's names. Nothing else is: no sound, no subtitles, no cover."""
_DECODERS = ",".join(sorted(CODECS | {"libdav1d", "libvpx", "libvpx-vp9"}))
_MOST_STREAMS = 64
_READ_BYTES = 1 << 20


@contextmanager
def open_video(
    source: BinaryIO, demuxer: str, limits: DecodeLimits
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container, and its first moving picture. Other streams are not even read.

    Raises:
        Undecodable: there is no picture, or it is coded in a way that is not taken.
    """
    source.seek(0)
    pixels = str(limits.max_picture_pixels)
    with av.open(
        source,
        format=demuxer,
        buffer_size=_READ_BYTES,
        io_open=_refuse_other_files,
        options={"max_pixels": pixels},
        container_options={
            "codec_whitelist": _DECODERS,  # FFmpeg tries a decoder while it looks at a file
            "format_whitelist": demuxer,
            "protocol_whitelist": "none",
            "max_streams": str(_MOST_STREAMS),
        },
    ) as container:
        stream = _picture(container)
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        # What a container says of a picture's size binds nobody: the decoder finds another in the stream.
        stream.codec_context.options = {"max_pixels": pixels, "codec_whitelist": _DECODERS}
        yield container, stream


def _picture(container: InputContainer) -> VideoStream:
    """The first moving picture; the cover of an audio file is a video stream to FFmpeg, but none to us."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise Undecodable("video.undecodable", "The video is coded in a way that is not supported.")
            codec = stream.codec_context.codec.canonical_name
            if codec not in CODECS:
                raise Undecodable("video.undecodable", f"Videos coded as {codec} are not taken.")
            return stream
    raise Undecodable("video.no_video_stream", "The file holds no video stream.")


def _refuse_other_files(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise PermissionError("a video may not refer to other files")
