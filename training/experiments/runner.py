"""Runs side by side, each in a process of its own; a finished one is a JSON file and is never run again."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from model_store.backbone_ref import find_backbone
from model_store.manifest import BACKBONE_FILE
from training.experiments.spec import DEMO, RunSpec
from training.trainer.errors import TrainingError
from training.trainer.world_samples import WorldSamples

Result = dict[str, Any]
_POLL_S = 0.2


class RunsFailed(TrainingError):
    """Some runs ended with an error; all others are finished and kept."""


@dataclass(frozen=True)
class Machine:
    """Where runs happen and what they share."""

    runs: Path  # finished ones, a JSON file each
    cache: Path  # drawn clips
    backbone: str
    side_by_side: int = 2
    threads: int = 1
    second: str = ""  # folder of the backbone of the other architecture

    def backbone_of(self, spec: RunSpec) -> str:
        """Name or folder of what a run trains on."""
        return self.backbone if spec.architecture == DEMO else self.second

    def still_counts(self, spec: RunSpec, result: Result) -> bool:
        """False for a run on another backbone, or on one that was trained anew since."""
        return result.get("backbone") == self.fingerprint(self.backbone_of(spec))

    @staticmethod
    def fingerprint(backbone: str) -> str:
        """Of a backbone's weights, by its name or folder."""
        folder = Path(backbone)
        if not (folder / BACKBONE_FILE).exists():
            _, folder = find_backbone(backbone)
        return json.loads((folder / BACKBONE_FILE).read_text())["fingerprint"]


def finished(machine: Machine, spec: RunSpec) -> Result | None:
    """The result of a run that is done; None where it is not, or its file was cut off."""
    path = machine.runs / f"{spec.key}.json"
    try:
        result = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return result if machine.still_counts(spec, result) else None


def run_all(
    machine: Machine, specs: Iterable[RunSpec], tell: Callable[[str, int, int], None]
) -> dict[str, Result]:
    """Key → result of every run; what is finished is not run again. ``tell`` hears (key, done, total).

    Raises:
        RunsFailed: after all others are done; each failed run left its traceback beside the results.
    """
    wanted = {spec.key: spec for spec in specs}
    results = {key: done for key, spec in wanted.items() if (done := finished(machine, spec)) is not None}
    waiting = [spec for key, spec in wanted.items() if key not in results]
    if waiting:
        machine.runs.mkdir(parents=True, exist_ok=True)
        draw_clips(machine.cache, waiting)
    failed: list[str] = []
    running: dict[str, BaseProcess] = {}
    context = get_context("forkserver")
    context.set_forkserver_preload(["training.experiments.execute", "transformers.models.video_llama_3"])
    try:
        while waiting or running:
            while waiting and len(running) < machine.side_by_side:
                spec = waiting.pop(0)
                process = context.Process(target=_execute, args=(spec, machine))
                process.start()
                running[spec.key] = process
            time.sleep(_POLL_S)
            for key in [key for key, process in running.items() if not process.is_alive()]:
                running.pop(key).join()
                result = finished(machine, wanted[key])
                if result is None:
                    failed.append(key)
                else:
                    results[key] = result
                tell(key, len(results) + len(failed), len(wanted))
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    if failed:
        raise RunsFailed(
            f"{len(failed)} of {len(wanted)} runs failed: {', '.join(sorted(failed)[:5])}; "
            f"see their .failed files in {machine.runs}, then run the same command again"
        )
    return results


def draw_clips(cache: Path, specs: Iterable[RunSpec]) -> None:
    """Every clip of the runs, drawn once, before any of them starts."""
    wanted = {(spec.domain, spec.split, spec.measured_clips, spec.max_frames) for spec in specs}
    wanted |= {(spec.domain, "train", spec.clips, spec.max_frames) for spec in specs if spec.clips}
    for domain, split, clips, max_frames in sorted(wanted):
        WorldSamples(domain, split, clips, max_frames=max_frames, cache=cache).draw()


def _execute(spec: RunSpec, machine: Machine) -> None:
    """What a run's process does."""
    from training.experiments.execute import execute

    target = machine.runs / f"{spec.key}.json"
    failure = target.with_suffix(".failed")
    try:
        result = execute(
            spec, backbone=machine.backbone_of(spec), cache=machine.cache, threads=machine.threads
        )
    except Exception:
        failure.write_text(traceback.format_exc())
        raise
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(target)
    failure.unlink(missing_ok=True)


#: Seconds of one CPU core: of a clip's training and answer, by method, and of a run around them.
_CLIP_S = {"milora": 0.045, "lora": 0.042, "rslora": 0.042, "dora": 0.05, "xlora": 0.09, "frozen": 0.0}
_ANSWER_S, _START_S = 0.08, 1.5


def estimate_s(machine: Machine, specs: Iterable[RunSpec]) -> float:
    """Seconds that the runs which are not finished take on this machine, from finished runs of a method where there
    are any."""
    specs = list({spec.key: spec for spec in specs}.values())
    per_clip = {**_CLIP_S, **_measured(machine)}
    left = [spec for spec in specs if finished(machine, spec) is None]
    total = sum(
        _START_S + spec.clips * per_clip[spec.method] + spec.measured_clips * _ANSWER_S for spec in left
    )
    return total / machine.side_by_side


def _measured(machine: Machine) -> Mapping[str, float]:
    seconds: dict[str, list[float]] = {}
    for path in machine.runs.glob("*.json"):
        try:
            result = json.loads(path.read_text())
        except json.JSONDecodeError:
            continue
        clips = result["spec"]["clips"]
        if clips:
            seconds.setdefault(result["spec"]["method"], []).append(result["train_s"] / clips)
    return {method: sum(values) / len(values) for method, values in seconds.items()}
