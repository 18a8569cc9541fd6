"""How the student is trained, evaluated and tracked, and on which machines."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raykd.config.base import Mark, Section, wrong

Beta = Annotated[float, Field(ge=0, lt=1, strict=True)]


_STORES = {"sqlite", "http", "https", "file", "postgresql", "mysql", "mssql"}
"""Kinds of MLflow store, by the scheme of their address."""


class TrainConfig(Section):
    """Optimiser, batches, precision and checkpoints. One step is one optimiser step on one global batch."""

    epochs: float | None = Field(None, gt=0)
    """Passes over the training data; give this or `steps`."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; give this or `epochs`."""
    batch_size: int = Field(16, ge=1)
    """Utterances in a global batch, or windows of them (`data.pack`): over all workers and accumulation steps."""
    micro_batch_size: Annotated[int | None, Mark.FREE] = Field(None, ge=1)
    """Most utterances a worker takes at once; more are accumulated. None: the worker's whole part."""
    lr: float = Field(1e-4, gt=0)
    """Highest learning rate of AdamW."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after the warm-up: down to 0 at the last step (linear, cosine), or as it is."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0; at most those of the run."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's; biases and norms have none."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's: of the mean of the gradients and of that of their squares."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's, added to the divisor."""
    clip_norm: float = Field(1.0, ge=0)
    """Gradient norm is cut to this; 0: off."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the student's computing; auto: bfloat16 where the hardware multiplies it (GPUs from Ampere on, CPUs with AVX512-BF16
    or AMX), float32 elsewhere. Master weights and optimiser states are float32."""
    compile: Annotated[bool | None, Mark.FREE] = None
    """Compile the frozen encoder (`torch.compile`), which takes a while once; where it cannot be compiled it runs as it is, and
    that is said. None: on GPUs."""
    zero_stage: Annotated[Literal[0, 1, 2, 3], Mark.FREE] = 1
    """What DeepSpeed shares out among the workers: 1 optimiser states, 2 gradients too, 3 weights too. One worker runs 1 and 2
    as 0."""
    eval_every: Annotated[int | None, Mark.FREE] = Field(None, ge=1)
    """Steps between dev evaluations; None: five times a run. Evaluation always writes a checkpoint first."""
    checkpoint_every: Annotated[int | None, Mark.FREE] = Field(None, ge=1)
    """Steps between checkpoints beside those of evaluations; None: only those."""
    keep_checkpoints: Annotated[int, Mark.FREE] = Field(2, ge=1)
    """Newest checkpoints kept; the best one by dev WER is always kept."""
    record_ids: Annotated[bool, Mark.FREE] = False
    """Write the ids of every trained batch to `<run>/trained_ids/`, to audit which utterances were trained on when."""

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of `epochs` and `steps`")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainConfig":
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise wrong(f"must be at most batch_size, {self.batch_size} (got {self.micro_batch_size})", "micro_batch_size")
        if self.steps is not None and self.warmup_steps > self.steps:
            raise wrong(f"must be at most steps, {self.steps} (got {self.warmup_steps})", "warmup_steps")
        return self


class LongFormConfig(Section):
    """How recordings longer than the model's window are transcribed (`--long-form` of `raykd evaluate` and `label`)."""

    method: Literal["sequential", "chunked"] = "sequential"
    """sequential: window after window, as Whisper does; chunked: overlapping chunks side by side, merged."""
    previous_text: bool = False
    """sequential: each window reads what was said before."""
    retries: bool = True
    """sequential: a window whose text repeats itself or is unlikely is decoded again at higher temperatures, up to 1."""
    chunk_s: float = Field(30.0, gt=0)
    """chunked: seconds of a chunk, of which a sixth overlaps at either side; at most the model's window."""

    @property
    def told(self) -> str:
        """In words."""
        if self.method == "chunked":
            return f"long form, chunks of {self.chunk_s:g} s"
        extras = ["with the text before"] * self.previous_text + ["retries at higher temperatures"] * self.retries
        return ", ".join(["long form, sequential", *extras])


class EvaluationConfig(Section):
    """Greedy decoding and scoring."""

    batch_size: int = Field(16, ge=1)
    """Utterances decoded at once by a worker."""
    max_new_tokens: int = Field(225, ge=1)
    """Longest transcript, in tokens."""
    normalizer: Literal["auto", "english", "basic", "none"] = "auto"
    """auto: Whisper's English normaliser for `en`, its basic one elsewhere, letters split for scripts without spaces."""
    workers: int | None = Field(None, ge=1)
    """Ray workers that decode; None: one a GPU, else one a core."""
    speed_batch_sizes: tuple[Annotated[int, Field(ge=1, strict=True)], ...] = (1, 8)
    """Batch sizes at which teacher and student are timed."""
    speed_utterances: int = Field(24, ge=1)
    """Utterances timed for each batch size."""
    worst_sentences: int = Field(20, ge=0)
    """Sentences of the highest WER that are shown."""
    vocabulary: Annotated[str | None, Mark.PATH_IF_THERE] = None
    """File with one word a line (.txt, .txt.gz), or a folder with a words file (a masked language model's or a text corpus's):
    adds the share of hypothesis words that are not in it."""
    long_form: LongFormConfig = LongFormConfig()
    """Of whole recordings, on request."""
    teacher_forced: bool = False
    """Add the loss, and arg-max WER and CER with gold prefixes as some papers report them, from one more decoder pass."""


class TrackingConfig(Section):
    """MLflow."""

    mlflow: bool = True
    """Whether runs are tracked."""
    uri: str | None = None
    """Default `sqlite:///mlflow.db`; the environment variable MLFLOW_TRACKING_URI wins over both."""
    experiment: str = "raykd"
    """Name of the MLflow experiment that holds the runs."""
    parent_run: str | None = None
    """Id of the MLflow run that this one is shown under, as those of a comparison are."""
    log_model: bool = True
    """Log the student as an MLflow model that `mlflow.transformers.load_model` loads."""
    system_metrics: bool = True
    """Log processor, memory and disk every ten seconds."""
    log_every: int = Field(10, ge=1)
    """Steps between two lines of training metrics."""

    @field_validator("uri")
    @classmethod
    def _is_a_store(cls, uri: str | None) -> str | None:
        if uri is None or uri.startswith("databricks"):
            return uri
        scheme, mark, _ = uri.partition("://")
        if not mark or scheme.partition("+")[0] not in _STORES:
            raise ValueError(f"must be sqlite:///FILE, http://HOST:PORT or another address of an MLflow store (got {uri!r})")
        return uri


class ClusterConfig(Section):
    """What of the Ray cluster is used."""

    num_workers: int | None = Field(None, ge=1)
    """Training workers; None: one a GPU, else two when there are two cores or more."""
    use_gpu: bool | None = None
    """Train on GPUs; None: when the cluster has GPUs."""
    cpus_per_worker: float | None = Field(None, gt=0)
    """Cores of a training worker; None: a fraction that leaves cores for the data pipeline."""
    share: float | None = Field(None, gt=0, le=1)
    """Share of the cluster's cores and GPUs that the run takes, workers, data and evaluation together; None: all. A sweep sets
    it for its trials."""
    max_failures: int = Field(3, ge=-1)
    """Worker failures survived before the job gives up; -1: any number."""
