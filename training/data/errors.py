"""What can be wrong with a whole data set; what is wrong with one video or one line is a Finding of its report.

DataError
├── AnnotationsUnfit   a file of annotations that cannot be read, or is not of its format
├── FolderUnfit        the folder of videos is not there
├── VideoUnreadable    raised by a decode function: this file gives no frames
└── CacheUnusable      the disk under the frame cache is full, or refuses
"""

from __future__ import annotations


class DataError(Exception):
    """The base of this package's errors; each message names the file and says what to do."""


class AnnotationsUnfit(DataError):
    """The annotations cannot be read at all."""


class FolderUnfit(DataError):
    """There is no folder of videos where one was named."""


class VideoUnreadable(DataError):
    """One file gives no frames; the message is the decoder's sentence."""


class CacheUnusable(DataError):
    """The frame cache cannot be written."""
