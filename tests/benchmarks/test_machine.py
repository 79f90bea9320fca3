"""The machine is named as it is."""

from __future__ import annotations

import torch

from benchmarks.machine import idle_share, this_machine


def test_the_machine_that_runs_this_is_named() -> None:
    machine = this_machine(watch_s=0.02)
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.packages["torch"] == torch.__version__
    assert machine.torch_threads == torch.get_num_threads()


def test_the_idle_share_is_a_share_or_unknown() -> None:
    share = idle_share(0.05)
    assert share is None or 0.0 <= share <= 1.0
