"""`visum train`: a domain's experts on a frozen backbone, from a config and pairs to a published version."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel

from training.data.example import Format
from visum.data import decodable, read, tell_of_the_left_out
from visum.errors import CliError, UsageError
from visum.settings import ServeSettings, read_settings
from visum.terminal import print_json

if TYPE_CHECKING:
    from training.data.example import Dataset
    from training.trainer.config import TrainConfig
    from training.trainer.quality import Quality
    from training.trainer.run import Plan

_WORLD = "world"
_HELD_OUT, _SPLIT_SEED = 0.2, 11  # of the own videos, to measure on
_EPOCHS, _PATIENCE = 20, 3  # of own videos, unless the config says otherwise

SectionT = TypeVar("SectionT", bound=BaseModel)


def train(
    domain: Annotated[str, typer.Option(help="The domain that the experts are for.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="A file of annotations, may be repeated; the demo world's clips without it."),
    ] = None,
    format: Annotated[Format, typer.Option(help="The annotations' format.")] = Format.JSONL,
    videos: Annotated[
        Path | None, typer.Option(help="The folder of the videos; the annotations' own without it.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder of decoded frames.")] = Path("runs/frames"),
    cache_bytes: Annotated[int, typer.Option(min=2**20, help="The most that it holds.")] = 8 * 2**30,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    clips: Annotated[int | None, typer.Option(min=16, help="Clips of the demo world to learn from.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pairs.")] = None,
    matrix_lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of the experts' A and B.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Equal seeds give equal weights.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Name or folder (VISUM_BACKBONE).")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/train/<domain> by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the checkpoints of an unfinished run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was published as JSON.")] = False,
) -> None:
    """Train a domain's experts and publish them; running services pick the new version up.

    Several GPUs: `accelerate launch -m visum train …`.
    """
    from transformers.utils.logging import disable_progress_bar

    from model_store.backbone_ref import adapter_roots, find_backbone
    from model_store.registry import DOMAIN_NAME, DOMAIN_RULE
    from training.data.errors import DataError
    from training.experts.recipe import CLIPS, world_config, world_plan
    from training.trainer.config import load_config
    from training.trainer.errors import TrainingError
    from training.trainer.run import train_and_publish

    own = [Path(name) for name in data or () if name != _WORLD]
    settings = read_settings(ServeSettings, backbone=backbone)
    if settings.trusted.keys:
        raise UsageError(
            "VISUM_TRUSTED_KEYS is set: what a training publishes is unsigned, and would be refused at its end",
            "Train without it, then sign what was made with `visum adapters sign`.",
        )
    if not DOMAIN_NAME.match(domain):
        raise UsageError(f"{domain[:80]!r} is no domain's name", f"A name is {DOMAIN_RULE}.")
    _, folder = find_backbone(settings.backbone, store=settings.store)
    disable_progress_bar()  # of the weights' loading: the run has its own
    changes = {
        "schedule.epochs": epochs,
        "schedule.matrix_lr": matrix_lr,
        "seed": seed,
        "machine.device": device,
    }
    try:
        common = {
            "backbone": str(folder),
            "folder": run or Path("runs/train") / domain,
            "roots": tuple(adapter_roots(settings.store)),
            "store": settings.store,
            "resume": resume,
            "fresh": fresh,
        }
        command = f"visum {' '.join(sys.argv[1:])}"
        if own:
            videos = videos or own[0].parent
            chosen, dataset = load_config(config, **changes), read(format, own, videos)
            frames = _frames(folder, cache, cache_bytes)
            plan = own_plan(domain, dataset, frames, chosen, command, common, videos)
        else:
            chosen = world_config(config, **changes)
            try:
                plan = world_plan(domain, chosen, command=command, clips=clips or CLIPS, **common)
            except ValueError as error:  # the demo world has no such domain
                raise UsageError(str(error), "Or name your own videos with --data.") from error
        entry, outcome = train_and_publish(plan, lambda line: typer.echo(line, err=True))
    except (TrainingError, DataError) as error:
        raise CliError(str(error)) from error
    if entry is None:
        return
    for finding in outcome.findings:
        typer.echo(str(finding), err=True)
    if as_json:
        quality = None if outcome.quality is None else outcome.quality.as_json()
        print_json(
            {"domain": entry.domain, "version": entry.version, "path": str(entry.path), "quality": quality}
        )
    else:
        if outcome.quality is not None:
            typer.echo(_measured(outcome.quality, outcome.frozen))
        typer.echo(f"published {entry.domain} version {entry.version} in {entry.path}")


def _measured(quality: Quality, frozen: Quality | None) -> str:
    beside = "" if frozen is None else f", the frozen backbone's {frozen.rouge_l:.3f}"
    return f"ROUGE-L {quality.rouge_l:.3f} on {quality.clips} held-out videos{beside}"


def own_plan(
    domain: str,
    dataset: Dataset,
    frames: Any,
    config: TrainConfig,
    command: str,
    common: dict[str, Any],
    videos: Path,
) -> Plan:
    """The training on a user's own videos: those that can be decoded, a share of them held out.

    The held-out ones are the same whatever the seed, so that versions can be compared on them.

    Raises:
        NoUsableData: no video is left.
        WriteFailed: the list of the held-out ones cannot be written.
    """
    from training.trainer.errors import NoUsableData
    from training.trainer.publishing import About
    from training.trainer.run import Plan
    from training.trainer.samples import held_out
    from training.trainer.video_samples import VideoSamples

    dataset = decodable(dataset)
    tell_of_the_left_out(dataset.report)
    if not dataset.examples:
        raise NoUsableData(
            f"none of the {dataset.report.annotated} annotated videos can be used: see `visum data check`"
        )
    train, validation = held_out(VideoSamples(dataset.examples, frames), _HELD_OUT, _SPLIT_SEED)
    kept = _write_held_out(dataset, set(validation.names), videos, common["folder"])
    typer.echo(f"{len(train)} videos to learn from, {len(validation)} held out: {kept}", err=True)
    about = About(
        domain,
        f"Summaries of {domain} videos.",
        f"{len(train)} videos of {dataset.format} annotations, {len(validation)} held out",
        command,
    )
    return Plan(about, config=for_own_videos(config), train=train, validation=validation, **common)


def for_own_videos(config: TrainConfig) -> TrainConfig:
    """The config with what it leaves open set for few videos seen often: measured and kept once an epoch."""
    schedule = _unless_set(config.schedule, epochs=_EPOCHS)
    watch = _unless_set(config.watch, evaluate_every="epoch", checkpoint_every="epoch", patience=_PATIENCE)
    return config.model_copy(update={"schedule": schedule, "watch": watch})


def _unless_set(section: SectionT, **values: int | str) -> SectionT:
    return section.model_copy(
        update={name: value for name, value in values.items() if name not in section.model_fields_set}
    )


def _write_held_out(dataset: Dataset, names: set[str], videos: Path, folder: Path) -> Path:
    """The held-out pairs as JSONL, for `visum evaluate`."""
    from training.trainer.checkpoint import writing

    path = folder / "held-out.jsonl"
    lines = [
        json.dumps(
            {"video": example.path.relative_to(videos).as_posix(), "summary": text}, ensure_ascii=False
        )
        for example in dataset.examples
        if example.id in names
        for text in example.references
    ]
    with writing(str(path), None):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _frames(backbone: Path, cache: Path, cache_bytes: int) -> Any:
    """A video's frames as this backbone wants them, decoded once."""
    from dataclasses import asdict

    from transformers import VideoLlama3Processor

    from model_store.backbone import read_backbone_manifest
    from training.data.frame_cache import FrameCache
    from visum.decoding import Decoder
    from workers.prompt import PromptBuilder

    processor = VideoLlama3Processor.from_pretrained(backbone, local_files_only=True)
    plan = PromptBuilder(processor, read_backbone_manifest(backbone, backbone.name)).frame_plan()
    return FrameCache(cache, cache_bytes, Decoder(plan), asdict(plan)).frames
