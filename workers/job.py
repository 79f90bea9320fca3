"""The function that RQ calls. The gateway names it by its dotted path and never imports it."""

from collections.abc import Callable

from rq.job import Retry

Runner = Callable[[str], Retry | None]

_runner: Runner | None = None


def bind(runner: Runner) -> None:
    """Say who runs the jobs of this process. Done once, when the model is loaded."""
    global _runner
    _runner = runner


def summarize(summary_id: str) -> Retry | None:
    """Run one summary to its end. What came of it is in its record; RQ learns only whether to queue it again.

    Raises:
        RuntimeError: if this process holds no model.
    """
    if _runner is None:
        raise RuntimeError("this process holds no model: run jobs with `visum worker`, not with `rq worker`")
    return _runner(summary_id)
