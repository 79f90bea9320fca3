"""Submitting and polling beside a bare Starlette endpoint that moves the same bytes, in turns."""

from __future__ import annotations

from benchmarks.cpu_shares import cpu_seconds
from benchmarks.report import Row
from benchmarks.side_by_side import Arm, Figures, Metric, Samples, take_turns
from resilience.load_client import MEDIAN, RATE, TAIL, drive, get, post
from resilience.load_plan import Plan
from resilience.load_service import FORM_TYPE, Running, form, submit
from resilience.load_verdict import Verdict

GATEWAY, BARE, THREADED = "gateway", "bare Starlette", "bare Starlette on a thread"
LEAST = 0.8
MIB = 2**20
CPU = Metric("processor time", "ms a request", higher_is_better=False)


def beside(running: Running, plan: Plan, verdict: Verdict) -> None:
    """Clips of every size and polls are held to the goal; what a poll is beside a bare one on a thread is told."""
    for size, requests in plan.submits:
        samples = _submits(running, size, requests, plan)
        _tell(verdict, f"submit {size / MIB:g} MiB", samples)
    polls = _polls(running, plan)
    _tell(verdict, "poll", polls)
    _tell(verdict, "poll beside a thread's", polls, beside=THREADED, held=False)
    running.empty()


def _submits(running: Running, size: int, requests: int, plan: Plan) -> Samples:
    body = form(size)
    asked = {
        GATEWAY: (running.url, running.gateway_pid, submit(body)),
        BARE: (running.bare_url, running.bare_pid, post("/", body, FORM_TYPE)),
    }

    def arm(name: str) -> Arm:
        url, pid, request = asked[name]

        def run(_: int) -> Figures:
            figures = _drive(url, pid, request, 202, requests, plan.connections)
            running.empty()
            return figures

        return run

    return take_turns({name: arm(name) for name in asked}, rounds=plan.rounds)


def _polls(running: Running, plan: Plan) -> Samples:
    found = drive(running.url, lambda _: submit(form(2048)), requests=2, connections=1)
    place = found.locations[0]
    asked = {
        GATEWAY: (running.url, running.gateway_pid, get(place)),
        BARE: (running.bare_url, running.bare_pid, get("/" + place.rsplit("/", 1)[1])),
        THREADED: (running.bare_url, running.bare_pid, get("/threaded/" + place.rsplit("/", 1)[1])),
    }
    arms = {
        name: lambda _, to=to: _drive(*to, 200, plan.polls, plan.connections) for name, to in asked.items()
    }
    return take_turns(arms, rounds=plan.rounds)


def _drive(url: str, pid: int, request: bytes, wanted: int, requests: int, connections: int) -> Figures:
    """What the clients saw, and what it cost the process that answered.

    Raises:
        RuntimeError: an answer was another than the one that is measured.
    """
    before = cpu_seconds(pid).total()
    found = drive(url, lambda _: request, requests=requests, connections=connections)
    spent = cpu_seconds(pid).total() - before
    if found.failed(wanted):
        raise RuntimeError(f"{url}: {dict(found.statuses)} where all should be {wanted}")
    return {**found.figures(), CPU: 1000 * spent / requests}


def _tell(verdict: Verdict, what: str, samples: Samples, *, beside: str = BARE, held: bool = True) -> None:
    for metric in (RATE, MEDIAN, TAIL, CPU):
        row: Row = samples.row(GATEWAY, beside, metric)
        ratio = row.ratio
        figure = f"{row.value.median:.1f} beside {row.baseline.median:.1f} {metric.unit}, ratio "
        figure += f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
        key = f"{what}, {metric.name}"
        if held and metric in (RATE, MEDIAN):  # one slow sync of the disk is a tail: it is told, not held
            verdict.hold(key, figure, f"≥ {LEAST}", ratio.median >= LEAST, ratio.median)
        else:
            verdict.tell(key, figure, ratio.median)
