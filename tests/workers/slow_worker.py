"""A worker whose every decode step takes as long as VISUM_TEST_STEP_S says: the real one, on a slower machine."""

from __future__ import annotations

import os
import sys
import time

from workers.main import run_worker
from workers.model_pass import ModelPass
from workers.settings import WorkerSettings

STEP_S = float(os.environ.get("VISUM_TEST_STEP_S", "0"))
_decode_step = ModelPass.decode_step


def _slow_step(self, batch, routing):
    time.sleep(STEP_S)
    return _decode_step(self, batch, routing)


if __name__ == "__main__":
    ModelPass.decode_step = _slow_step
    sys.exit(run_worker(WorkerSettings()))
