"""A worker whose every decode step takes as long as VISUM_TEST_STEP_S says: the real one, on a slower machine.

With VISUM_TEST_STEP_FAILS every step raises a RuntimeError of these words, as on a device that has failed."""

from __future__ import annotations

import os
import sys
import time

from workers.main import run_worker
from workers.settings import WorkerSettings
from workers.token_step import TokenStep

STEP_S = float(os.environ.get("VISUM_TEST_STEP_S", "0"))
STEP_FAILS = os.environ.get("VISUM_TEST_STEP_FAILS", "")
_take_step = TokenStep.__call__


def _slow_step(self, *step):
    time.sleep(STEP_S)
    if STEP_FAILS:
        raise RuntimeError(STEP_FAILS)
    return _take_step(self, *step)


if __name__ == "__main__":
    TokenStep.__call__ = _slow_step
    sys.exit(run_worker(WorkerSettings()))
