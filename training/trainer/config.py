"""Every number of a training in one typed file.

    seed = 11
    groups = ["temporal", "spatial"]

    [temporal]                 # the same keys under [spatial]
    experts = 4                # K
    rank = 8                   # r
    lora_alpha = 16.0
    temperature = 1.0          # τ
    top_k = 0                  # 0: all experts speak

    [loss]
    frobenius = 1e-6           # λ
    balance = 0.02             # μ

    [schedule]
    epochs = 1
    matrix_lr = 0.015

What a file does not say has the default below. The shipped adapters' recipe (`training/experts/recipe.py`) differs from
it in the size of a batch, the measurements and the instructions.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from milora import Architecture, GroupConfig, GroupName, MiloraConfig
from milora.architectures.video_llama_3 import VIDEO_LLAMA_3
from training.trainer.errors import InvalidConfig


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GroupSettings(_Section):
    """One group of experts."""

    experts: int = Field(default=4, ge=1, le=256, description="K, the experts a layer")
    rank: int = Field(default=8, ge=1, le=1024, description="r, the rank of one expert")
    lora_alpha: float = Field(default=16.0, gt=0, description="an expert is scaled by lora_alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the experts' input")
    temperature: float = Field(default=1.0, gt=0, description="tau of the gate's softmax")
    top_k: int = Field(default=0, ge=0, description="experts a layer that speak for a video; 0: all")
    targets: tuple[str, ...] = Field(default=(), description="fnmatch patterns; none: the architecture's own")
    lr_scale: float = Field(default=1.0, gt=0, description="multiplies matrix_lr for this group's A and B")

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> GroupSettings:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is above the number of experts, {self.experts}")
        return self

    def group(self, targets: tuple[str, ...]) -> GroupConfig:
        """The group as the method wants it; ``targets`` are the architecture's."""
        return GroupConfig(
            self.targets or targets,
            self.experts,
            self.rank,
            self.lora_alpha,
            dropout=self.dropout,
            temperature=self.temperature,
            top_k=self.top_k,
        )


class LossSettings(_Section):
    """L = L_sum + frobenius · Σ(‖A_k‖² + ‖B_k‖²) + balance · (log K − H(mean gate))."""

    frobenius: float = Field(default=1e-6, ge=0, description="lambda")
    balance: float = Field(default=0.02, ge=0, description="mu")


class ScheduleSettings(_Section):
    """How long, how fast, in which pieces. Rates are multiplied by a warm-up and by a cosine over all steps."""

    epochs: int = Field(default=1, ge=1, description="passes over the training pairs")
    max_steps: int = Field(default=0, ge=0, description="stop after so many steps; 0: after the epochs")
    batch_size: int = Field(default=8, ge=1, description="clips a batch")
    tokens_per_batch: int = Field(
        default=0, ge=0, description="text positions a batch in place of batch_size; for the fast pass"
    )
    accumulation: int = Field(default=1, ge=1, description="batches a step")
    matrix_lr: float = Field(default=1.5e-2, gt=0, description="of A and B")
    gate_lr: float = Field(default=2e-3, gt=0, description="of G")
    fusion_lr: float = Field(default=2e-2, gt=0, description="of a")
    warmup_steps: int = Field(default=30, ge=0, description="steps of the warm-up, a fifth of all at most")
    floor: float = Field(default=1e-3, ge=0, le=1, description="least share of the rates")
    clip_norm: float = Field(default=1.0, gt=0, description="gradients are scaled down to this norm")


class WatchSettings(_Section):
    """What is measured meanwhile, and when the run may end early."""

    calibration_clips: int = Field(default=192, ge=2, description="clips that standardize the gates' input")
    validation_clips: int = Field(default=100, ge=0, description="most validation clips that are answered")
    evaluate_every: Annotated[int, Field(ge=0)] | Literal["epoch"] = Field(
        default=0, description='steps between measurements, or "epoch"; 0: only at the end'
    )
    patience: int = Field(
        default=0, ge=0, description="stop after so many measurements without a better one; 0: never"
    )
    frozen: bool = Field(default=True, description="measure the frozen backbone first")
    checkpoint_every: Annotated[int, Field(ge=1)] | Literal["epoch"] = Field(
        default=100, description='steps between checkpoints, or "epoch"'
    )
    answer_tokens: int = Field(default=160, ge=1, description="longest answer while measuring")
    mark_clips: int = Field(default=400, ge=2, description="clips of the recognition mark")


class MachineSettings(_Section):
    """What it runs on. What is learned depends on the device, the precision and the pass, and on nothing else here."""

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto (a GPU where there is one), cpu, cuda",
    )
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="of the frozen backbone")
    gradient_checkpointing: bool = Field(default=False, description="less memory, a third more time")
    forward: Literal["auto", "fast", "stock"] = Field(
        default="auto", description="fast: the hand-written pass of the demo backbone, on the CPU"
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's own")
    loaders: int = Field(default=0, ge=0, description="processes that read videos ahead; 0: none")
    tensorboard: bool = Field(default=True, description="write TensorBoard events beside the CSV log")


class TrainConfig(_Section):
    """A training. Two equal ones over the same data give the same weights."""

    seed: int = Field(default=11, ge=0, description="of experts, order, dropout and noise")
    groups: tuple[GroupName, ...] = Field(
        default=("temporal", "spatial"), min_length=1, description="what is adapted"
    )
    fusion: Literal["learned", "fixed", "per_layer"] = Field(
        default="learned", description="alpha: learned, fixed at one half, or one a layer"
    )
    temporal: GroupSettings = GroupSettings()
    spatial: GroupSettings = GroupSettings(lr_scale=0.3)
    loss: LossSettings = LossSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    watch: WatchSettings = WatchSettings()
    machine: MachineSettings = MachineSettings()
    instructions: tuple[str, ...] = Field(
        default=(), description="prompts: the first for three batches of four; none: the backbone's own"
    )
    augment: bool = Field(default=True, description="brightness and grain vary, in the fast pass")

    @field_validator("groups")
    @classmethod
    def _each_once(cls, groups: tuple[GroupName, ...]) -> tuple[GroupName, ...]:
        if len(set(groups)) < len(groups):
            raise ValueError("a group is named twice")
        return groups

    def milora(self, architecture: Architecture = VIDEO_LLAMA_3) -> MiloraConfig:
        """The groups that are trained in a model of this architecture."""
        groups = {name: getattr(self, name).group(getattr(architecture, name)) for name in self.groups}
        return MiloraConfig(**groups, fusion=self.fusion)

    def learned(self) -> dict[str, Any]:
        """All that decides what is learned: the config without the machine."""
        return self.model_dump(mode="json", exclude={"machine"})


def load_config(path: Path | None, **changes: Any) -> TrainConfig:
    """The config of a TOML file, changed by dotted keys such as ``schedule.matrix_lr``; ``None`` values change nothing.

    Raises:
        InvalidConfig: the file cannot be read, is no TOML, or has a key or value that cannot be meant.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise InvalidConfig(f"{path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidConfig(f"{path} is not TOML: {error}") from error
    for key, value in changes.items():
        if value is not None:
            *sections, last = key.split(".")
            inner = values
            for section in sections:
                inner = inner.setdefault(section, {})
                if not isinstance(inner, dict):
                    raise InvalidConfig(f"{path}: {section} is a table, [{section}], and not a value")
            inner[last] = value
    if isinstance(values.get("spatial"), dict):
        values["spatial"] = {"lr_scale": TrainConfig().spatial.lr_scale, **values["spatial"]}
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InvalidConfig(f"{path or 'the config'}: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    """Every problem by its key, an unknown key with those that there are."""
    told = []
    for problem in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            told.append(f"unknown key {key} (there are: {', '.join(_keys(problem['loc'][:-1]))})")
        else:
            told.append(f"{key}: {problem['msg']}" if key else problem["msg"])
    return "; ".join(told)


def _keys(section: tuple[str | int, ...]) -> list[str]:
    model: Any = TrainConfig
    for name in section:
        model = model.model_fields[name].annotation
    return sorted(model.model_fields)
