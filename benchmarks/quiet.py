"""The libraries' warnings and progress bars are not part of the report."""

from __future__ import annotations

import logging
import os
import warnings


def quiet() -> None:
    """For this process and those that it starts."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler; before torch is imported
    warnings.simplefilter("ignore")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
