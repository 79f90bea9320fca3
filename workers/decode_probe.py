"""Which layers of the sandbox this machine has, found out at the worker's start by confining a real process."""

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


def sandbox_suffices(policy: Sandbox, metrics: WorkerMetrics, server: DecodeServer = SERVER) -> bool:
    """Say once and loudly what is missing; whether the worker may work all the same."""
    try:
        missing = missing_layers(server)
    except (OSError, ValueError) as failure:
        log.error("no decoding process can be started: %s", failure)
        return False
    for layer in Layer:
        metrics.sandbox_layer.labels(layer.value).set(layer not in missing)
        if layer in missing:
            log.warning(
                "videos are decoded without the sandbox's %s: %s. To have it, %s",
                layer,
                missing[layer],
                _REMEDY[layer],
            )
    if missing and policy is Sandbox.REQUIRED:
        log.error(
            "VISUM_SANDBOX is required, and %s is missing: no video is decoded here.", ", ".join(missing)
        )
        return False
    return True
