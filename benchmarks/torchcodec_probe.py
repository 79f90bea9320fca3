"""Decodes with torchcodec in a process of its own; `benchmarks.video_decoding` runs it.

    python -m benchmarks.torchcodec_probe

One JSON object a line on standard input, {"path", "indices", "mode", "thumbnails"}, one on standard output,
{"seconds"}, with every 16th pixel of the frames saved as `thumbnails`. The first line out says what it is,
{"version"}, or why there will be no other, {"missing"}.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

THUMBNAIL = 16


def main() -> None:
    """Answer until standard input ends."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder

        VideoDecoder(sys.argv[1])
    except (ImportError, RuntimeError, OSError) as missing:
        return _say(missing=str(missing).strip().splitlines()[0])
    _say(version=torchcodec.__version__)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        # As many threads as FFmpeg thinks right, which is how transformers asks for it too.
        decoder = VideoDecoder(
            asked["path"], seek_mode=asked["mode"], num_ffmpeg_threads=0, dimension_order="NHWC"
        )
        frames = decoder.get_frames_at(asked["indices"]).data.numpy()
        seconds = time.perf_counter() - began
        np.save(asked["thumbnails"], frames[:, ::THUMBNAIL, ::THUMBNAIL])
        _say(seconds=seconds)
    return None


def _say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
