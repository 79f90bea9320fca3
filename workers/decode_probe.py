"""Which layers of the sandbox this machine has: by a real process at the worker's start, and by those that follow."""

import logging
import os

from workers.decode_process import SERVER, DecodeServer
from workers.decode_sandbox import Layer, Missing, Sandbox
from workers.decode_wire import Kind, receive_json, send_json
from workers.metrics import WorkerMetrics

log = logging.getLogger("visum.decode")

_ANSWER_S = 60.0
_REMEDY = {
    Layer.LIMITS: "let the worker set resource limits.",
    Layer.PRIVILEGES: "run the worker as a user that is not root.",
    Layer.NAMESPACES: "allow unprivileged user namespaces (sysctl user.max_user_namespaces and, where there is one, "
    "kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns) and, in a container, "
    "unshare, mount, umount2 and pivot_root in its seccomp and AppArmor profiles.",
    Layer.LANDLOCK: "use Linux 5.13 or newer with landlock in its list of security modules (lsm=), and in a container "
    "a seccomp profile that allows landlock_create_ruleset and landlock_restrict_self.",
    Layer.SECCOMP: "use a Linux with seccomp filters, on x86_64 or aarch64.",
}


def missing_layers(server: DecodeServer = SERVER) -> Missing:
    """The layers that a decoding process lacks here, and what the kernel said.

    Raises:
        OSError: no process can be started, or it does not answer.
        ValueError: it answers nonsense.
    """
    with open(os.devnull, "rb") as nothing:
        process = server.start(nothing.fileno())
    try:
        process.link.settimeout(_ANSWER_S)
        send_json(process.link, Kind.REQUEST, {"demuxer": None, "plan": {}, "limits": {}})
        return receive_json(process.link, Kind.SANDBOX)
    finally:
        process.close()


class SandboxWatch:
    """Says of each layer that it is missing: once, when the worker starts or when a video first goes without it."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._missing: set[Layer] = set()

    def suffices(self, policy: Sandbox, server: DecodeServer = SERVER) -> bool:
        """Look at a process that decodes nothing; whether the worker may work with what it has."""
        try:
            missing = missing_layers(server)
        except (OSError, ValueError) as failure:
            log.error("no decoding process can be started: %s", failure)
            return False
        for layer in Layer:
            self._metrics.sandbox_layer.labels(layer.value).set(1)
        self.note(missing)
        if missing and policy is Sandbox.REQUIRED:
            log.error(
                "VISUM_SANDBOX is required, and %s is missing: no video is decoded here.", ", ".join(missing)
            )
            return False
        return True

    def note(self, missing: Missing) -> None:
        """A process lacks these. Called on any thread; said twice where two are the first, which does no harm."""
        for layer in Layer:
            if layer in missing and layer not in self._missing:
                self._missing.add(layer)
                self._metrics.sandbox_layer.labels(layer.value).set(0)
                log.warning(
                    "videos are decoded without the sandbox's %s: %s. To have it, %s",
                    layer,
                    missing[layer],
                    _REMEDY[layer],
                )
