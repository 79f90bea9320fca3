"""What a decode step spends its time on, by torch's own profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.profiler import ProfilerActivity, profile

from benchmarks.engine_arm import Ask, Running, together
from benchmarks.report import Breakdown, Share
from benchmarks.spread import Spread

FIRST, STEPS = 4, 8
"""The step that is profiled first, and how many are."""
TOP = 8


def profiled(on: Running, asks: Sequence[Ask], title: str, top: int = TOP) -> Breakdown:
    """The operations (on a GPU the kernels) with the largest share of the time, their own time alone.

    The profiler starts and stops on the engine's thread, whose operations are the only ones it sees.
    """
    activities = [ProfilerActivity.CPU]
    on_gpu = on.case.backbone.device.type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    recorder = profile(activities=activities)

    def switch(done: int, _: int) -> None:
        if done == FIRST:
            recorder.start()
        elif done == FIRST + STEPS:
            recorder.stop()

    together(on, asks, FIRST + STEPS + 1, on_token=switch)
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in recorder.key_averages()
    }
    return breakdown(times, title, top=top)


def profiled_here(work: Callable[[], object], title: str, times: int) -> Breakdown:
    """The same for something that runs on the caller's thread, `times` times over."""
    with profile(activities=[ProfilerActivity.CPU]) as recorder:
        for _ in range(times):
            work()
    spent = {event.key: event.self_cpu_time_total for event in recorder.key_averages()}
    return breakdown(spent, title, steps=times)


def breakdown(times: dict[str, float], title: str, *, steps: int = STEPS, top: int = TOP) -> Breakdown:
    """Microseconds by operation over all profiled steps → milliseconds a step, and the largest ones' shares of it.

    Raises:
        ValueError: nothing was recorded.
    """
    total = sum(times.values())
    if total <= 0:
        raise ValueError("the profiler recorded nothing")
    largest = sorted(times, key=times.__getitem__, reverse=True)[:top]
    rest = total - sum(times[name] for name in largest)
    shares = [Share(name="one, with the profiler on", unit="ms", value=Spread.of([total / steps / 1000]))]
    for name, time in [*((name, times[name]) for name in largest), ("all others", rest)]:
        shares.append(Share(name=f"`{name[:80]}`", unit="%", value=Spread.of([100 * time / total])))
    return Breakdown(title=title, shares=tuple(shares))
