"""Which jobs of a worker hang: they were told to stop and do not, or the engine moves nothing."""

from collections.abc import Callable, Iterable

from contract.records import Progress, Stage
from workers.control import JobControl
from workers.patience import Patience

_WITH_THE_ENGINE = (Stage.ADAPTER, Stage.PREFILL, Stage.GENERATE)


class HangWatch:
    """Looks at the jobs again and again, from one thread; `patience` is how long either may last."""

    def __init__(self, patience: Callable[[], Patience]) -> None:
        self._patience = patience
        self._unwinding: dict[JobControl, Patience] = {}  # since they were found to have been told to stop
        self._with_engine: dict[JobControl, Progress] = {}  # how far they were at the last look
        self._standstill = patience()

    def hung(self, controls: Iterable[JobControl]) -> set[JobControl]:
        """Jobs that were told to stop long ago, and all that are with the engine if it has moved none of them."""
        begun = [control for control in controls if control.generation is not None]
        since, self._unwinding = self._unwinding, {}
        for control in begun:
            if control.stop.is_set():
                self._unwinding[control] = since.get(control) or self._patience()
        moved_from, self._with_engine = (
            self._with_engine,
            {control: control.progress for control in begun if control.progress.stage in _WITH_THE_ENGINE},
        )
        if not self._with_engine or self._with_engine != moved_from:
            self._standstill = self._patience()
        hung = {control for control, patience in self._unwinding.items() if patience.over()}
        return hung | set(self._with_engine) if self._standstill.over() else hung
