"""The whole configuration as one frozen object: names, types and ranges, and no defaults.

Defaults live in ``conf/*.yaml`` alone. Every field here is required, every unknown key refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from classifier_training.config.choices import ResizeMode
from classifier_training.config.grouping import parse_group_by
from classifier_training.config.output_uri import check_output_uri

Fraction = Annotated[float, Field(ge=0, lt=1)]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
PositiveInt = Annotated[int, Field(ge=1)]
# KEY= on the command line is an empty string; as a path that would be the working directory.
Text = Annotated[str, Field(min_length=1)]
Batches = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]
Target = dict[str, Any]


class Section(BaseModel):
    """A part of the configuration: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class SplitConfig(Section):
    """How the data is split where it does not say so itself."""

    val: Annotated[float, Field(gt=0, lt=1)]
    test: Fraction
    seed: Annotated[int, Field(ge=0)]
    manifest: Text | None
    folds: Annotated[int, Field(ge=2)] | None
    fold: Annotated[int, Field(ge=0)] | None


class FieldsConfig(Section):
    """Names of the columns (CSV) or keys (JSONL) of a row."""

    image: Text
    label: Text
    metadata: Text | None
    split: Text | None


class DataConfig(Section):
    """Where the labelled images are and how they are fed."""

    source: Literal["folder", "jsonl", "csv"]
    data_root: Text
    train_path: Text | None
    val_path: Text | None
    test_path: Text | None
    split: SplitConfig
    group_by: Text | None
    fields: FieldsConfig | None
    classes: Annotated[list[Text], Field(min_length=2)] | Text | None
    on_empty_label: Literal["error", "skip", "class"]
    empty_label_name: Text | None
    corrections: Text | None
    check: Literal["full", "labels", "none"]
    on_bad_image: Literal["error", "skip"]
    max_bad_share: Fraction
    near_duplicate_distance: Annotated[int, Field(ge=0, le=16)]
    min_image_side: PositiveInt
    max_aspect_ratio: Annotated[float, Field(gt=1)]
    min_class_images: PositiveInt
    batch_size: PositiveInt | Literal["auto"]
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"]
    prefetch_factor: PositiveInt
    cache: Literal["auto", "none", "ram", "disk"]
    cache_dir: Text | None
    staging_dir: Text | None
    sampler: Literal["none", "weighted", "sqrt"]
    allow_double_balance: bool

    @property
    def images_a_batch(self) -> int:
        """``batch_size`` of a run, in which ``auto`` has been decided."""
        if self.batch_size == "auto":
            raise RuntimeError("data.batch_size=auto has not been decided")
        return self.batch_size

    @field_validator("classes")
    @classmethod
    def _classes_distinct(cls, value: list[str] | str | None) -> list[str] | str | None:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError("each class name may stand once")
        return value

    @field_validator("group_by")
    @classmethod
    def _group_by_readable(cls, value: str | None) -> str | None:
        if value is not None:
            parse_group_by(value)
        return value


class TransformsConfig(Section):
    """Preprocessing shared by training, evaluation and deployment, and the augmentation."""

    image_size: Annotated[int, Field(ge=8, le=4096)]
    resize: ResizeMode
    mean: Channels
    std: Channels
    reduce_to: Annotated[float, Field(ge=1)] | None
    train: list[Target]

    @field_validator("mean")
    @classmethod
    def _mean_in_unit_range(cls, value: list[float]) -> list[float]:
        if not all(0 <= channel <= 1 for channel in value):
            raise ValueError("mean is of values in 0..1; divide by 255 if yours is of 0..255")
        return value

    @field_validator("std")
    @classmethod
    def _std_positive(cls, value: list[float]) -> list[float]:
        if not all(0 < channel <= 1 for channel in value):
            raise ValueError("std is of values in 0..1 and above 0; divide by 255 if needed")
        return value


class ModelConfig(Section):
    """Backbone, its starting weights, and what of it is trained."""

    name: Text
    weights: Text | None
    freeze: bool
    init_from: Text | None
    channels_last: bool


class LossConfig(Section):
    """The training loss: a registered name, and the refinements of cross-entropy."""

    name: Text

    label_smoothing: Fraction
    class_weights: Literal["none", "inverse", "effective"]
    focal_gamma: Annotated[float, Field(ge=0)]
    logit_adjustment: Annotated[float, Field(ge=0)]


class OptimizerConfig(Section):
    """The optimizer: a registered name, and what it is built from."""

    name: Text

    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    head_lr_multiplier: Annotated[float, Field(gt=0)]


class ScheduleConfig(Section):
    """The learning rate over optimizer steps: a registered name, and its shape."""

    name: Text

    warmup_epochs: Annotated[float, Field(ge=0)]
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)]


class TrainerConfig(Section):
    """Keys of ``lightning.pytorch.Trainer``."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Annotated[int, Field(ge=-1)]
    strategy: Literal["auto", "ddp"]
    num_nodes: PositiveInt
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    max_epochs: PositiveInt
    gradient_clip_val: Annotated[float, Field(gt=0)] | None
    gradient_clip_algorithm: Literal["norm", "value"]
    accumulate_grad_batches: PositiveInt
    log_every_n_steps: PositiveInt
    num_sanity_val_steps: Annotated[int, Field(ge=0)]
    limit_train_batches: Batches
    limit_val_batches: Batches
    deterministic: bool
    benchmark: bool
    profiler: Literal["simple", "advanced"] | None

    @field_validator("devices")
    @classmethod
    def _some_device(cls, value: int) -> int:
        if value == 0:
            raise ValueError("devices must be at least 1, or -1 for all")
        return value


class EmaConfig(Section):
    """Exponential moving average of the weights."""

    enabled: bool
    decay: Annotated[float, Field(gt=0, lt=1)]
    score_raw: bool


class CheckpointConfig(Section):
    """Which epochs are kept, and when else the run is saved."""

    monitor: Text
    save_top_k: Annotated[int, Field(ge=0)]
    every_n_steps: PositiveInt | None
    every_minutes: Annotated[float, Field(gt=0)] | None
    grace_s: Annotated[float, Field(gt=0)]


class CalibrationConfig(Section):
    """What is fitted on val for the deployed model, besides its weights."""

    enabled: bool
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] | None
    target_coverage: Annotated[float, Field(gt=0, lt=1)] | None
    conformal_coverage: Annotated[float, Field(gt=0, lt=1)]
    ood_kept: Annotated[float, Field(gt=0, lt=1)]


class ExplainConfig(Section):
    """Pictures of where the network looked."""

    enabled: bool
    images: Annotated[int, Field(ge=1, le=200)]


class ExportConfig(Section):
    """The ONNX file."""

    opset: Annotated[int, Field(ge=18, le=23)]
    precision: Text
    int8_max_loss: Annotated[float, Field(ge=0, le=1)]


class TaskConfig(Section):
    """Keys as the sibling's launcher spells them."""

    checkpoint_path: Text | None


class Config(Section):
    """Everything that ``classifier train`` was asked for."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    resume: Literal["auto", "never"]
    ckpt_path: Text | None
    task: TaskConfig
    allow_modules: list[Text]
    output_uri: Text | None
    data: DataConfig
    transforms: TransformsConfig
    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    ema: EmaConfig
    checkpoint: CheckpointConfig
    calibration: CalibrationConfig
    explain: ExplainConfig
    callbacks: dict[str, Target | None]
    logging: dict[str, Target | None]
    export: ExportConfig

    @field_validator("output_uri")
    @classmethod
    def _output_uri_usable(cls, value: str | None) -> str | None:
        if value is not None:
            check_output_uri(value)
        return value

    def with_batch_size(self, images: int) -> Config:
        """Return this configuration with ``data.batch_size=auto`` decided."""
        return self.model_copy(update={"data": self.data.model_copy(update={"batch_size": images})})

    @property
    def start_checkpoint(self) -> str | None:
        """The checkpoint to go on from, whichever way it was spelt."""
        return self.ckpt_path or self.task.checkpoint_path
