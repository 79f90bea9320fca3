"""The two processes of the service as commands: gateway and worker, alone or as children of `visum serve`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

PARENT_VARIABLE = "VISUM_SUPERVISOR_PID"
WATCH_EVERY_S = 1.0
GATEWAY_DRAIN_S = 10


def run_gateway() -> None:
    """Serve HTTP until SIGTERM. Loads no torch."""
    import uvicorn

    from contract import logs, tracing
    from service.settings import GatewaySettings
    from visum.settings import read_settings

    follow_supervisor()
    settings = read_settings(GatewaySettings)
    logs.configure(settings.log_format, settings.log_level)
    tracing.configure("visum-gateway")
    logging.getLogger("uvicorn.error").setLevel(settings.log_level)
    # uvicorn gives a signal back once it has shut down: then the process ends well, not by that signal.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    uvicorn.run(
        "service.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        server_header=False,
        access_log=False,  # /metrics counts requests by route and status
        log_config=None,  # as all of ours
        timeout_graceful_shutdown=GATEWAY_DRAIN_S,
    )


def run_worker() -> int:
    """Take jobs from the queue until SIGTERM, then finish what is in flight and hand the rest back.

    Returns the exit code.
    """
    from visum.settings import read_settings
    from workers.main import run_worker as work
    from workers.settings import WorkerSettings

    follow_supervisor()
    return work(read_settings(WorkerSettings))


def follow_supervisor() -> None:
    """End this process in order when the `visum serve` that started it is gone, even by SIGKILL."""
    supervisor = os.environ.get(PARENT_VARIABLE)
    if supervisor is None or int(supervisor) != os.getppid():
        return  # started by hand

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_EVERY_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, args=(os.getppid(),), name="follow-supervisor", daemon=True).start()
