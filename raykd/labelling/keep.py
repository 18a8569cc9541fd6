"""Making a teacher cache (`data.teacher_cache`): the teacher's answers about the training utterances, once, for all runs."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from raykd import __version__, storage
from raykd.config import Config
from raykd.config.label import CacheConfig
from raykd.data.batches import SpeechCollate
from raykd.data.corpus import Corpus, Index, read_rows, utterance_of, write_parquet
from raykd.data.teacher_cache import (
    ANSWERS_SCHEMA,
    INDEX_FILE,
    KINDS,
    SCHEMAS,
    STORE_FILE,
    Kind,
    digest_of,
    open_store,
    read_table,
    token_type,
)
from raykd.data.token_map import TokenMap
from raykd.errors import UserError
from raykd.labelling.answers import likeliest, narrowed
from raykd.labelling.plan import Progress, alone, begin, require_same, writing
from raykd.labelling.ready import ready_to_label
from raykd.labelling.stage import Item, run_stage
from raykd.models.precision import compute_dtype
from raykd.models.routing import speaking
from raykd.parts.distribution import HeadDistribution
from raykd.parts.targets.cached import asked, cache_folder
from raykd.parts.targets.target import Ready
from raykd.parts.targets.whisper import WhisperTarget
from raykd.tracking.progress import Progress as Bar


def kept_answers(config: Config, which: str, progress: Bar, *, gpus: float = 0.0, out: str | None = None) -> tuple[str, float]:
    """The folder where a teacher's answers about a config's training data are kept, and the hours that they are about. What is
    missing is made. `which`: a kind, or `both`; `out`: another place than the one where training looks.

    Raises:
        UserError: as `ready_to_label` and `make_cache`.
    """
    ready = ready_to_label(config, progress)
    assert config.teacher is not None
    folder = out or cache_folder(config.data.cache_dir, ready)
    progress.phase("keeping", unit="answers")
    kinds = [kind for kind in KINDS if which in (kind, "both")]
    make_cache(folder, kinds, config.teacher, ready, config.cache, gpus=gpus, progress=progress.update)
    progress.done()
    return folder, float(ready.corpus.index("train").duration_s.sum()) / 3600 * config.cache.views


def make_cache(
    folder: str,
    kinds: Sequence[Kind],
    teacher: WhisperTarget,
    ready: Ready,
    config: CacheConfig,
    *,
    gpus: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> None:
    """Make those stores of a cache that are not there, and go on with those that were interrupted. Ray must be initialised.

    Raises:
        UserError: a store is there that was made otherwise, another process makes it, or the folder cannot be written.
    """
    with alone(folder):
        _make(folder, kinds, teacher, ready, config, gpus, progress)


def _make(
    folder: str,
    kinds: Sequence[Kind],
    teacher: WhisperTarget,
    ready: Ready,
    config: CacheConfig,
    gpus: float,
    progress: Progress,
) -> None:
    corpus = ready.corpus
    index = corpus.index("train")
    plans = {kind: _plan(kind, teacher, ready, config) for kind in kinds}
    wanted = [kind for kind in kinds if not _is_finished(folder, kind, plans[kind])]
    for kind in wanted:
        begin(storage.join(folder, kind), plans[kind])
    items = _left(folder, wanted, index, config)
    total = len(index) * config.views
    done_before = total - sum(len(item["positions"]) for item in items)
    tokens = TokenMap.of(ready.speech_format, ready.kept_tokens)
    job = _Job(
        folder=folder,
        kinds=tuple(wanted),
        teacher=teacher,
        corpus=corpus,
        collate=SpeechCollate(
            ready.speech_format.window_frames,
            corpus.pad_id if tokens is None else tokens.pad_id,
            tuple(one.change_row for one in ready.method.inputs if one.changes_rows and one.reaches_targets()),
            ready.seed,
            tokens=tokens,
        ),
        kept_tokens=ready.kept_tokens,
        config=config,
    )
    run_stage(job, items, gpus=gpus, workers=config.workers, progress=lambda done: progress(done_before + done, total))
    for kind in wanted:
        _finish(folder, kind, plans[kind], len(index) * config.views)


def _plan(kind: Kind, teacher: WhisperTarget, ready: Ready, config: CacheConfig) -> dict[str, Any]:
    """What a store says that it was made with, before it is."""
    plan = {**asked(kind, ready), "corpus": ready.corpus.key, "teacher": teacher.model, "dtype": teacher.dtype}
    plan |= {"views": config.views, "raykd": __version__}
    if kind == "topk":
        return plan | {"k": config.k, "temperatures": list(config.temperatures)}
    return plan | {"states": config.states}


def _is_finished(folder: str, kind: Kind, plan: Mapping[str, Any]) -> bool:
    store = open_store(folder, kind)
    if store is not None:
        require_same(storage.join(folder, kind), store.made, plan)
    return store is not None


def _left(folder: str, kinds: Sequence[Kind], index: Index, config: CacheConfig) -> list[Item]:
    """The batches that are not in every store: utterances of like length, the longest first."""
    done = [_answered(folder, kind) for kind in kinds]
    longest_first = np.argsort(-index.n_tokens, kind="stable")
    items: list[Item] = []
    for view in range(config.views if kinds else 0):
        left = [int(one) for one in longest_first if any((index.ids[one], view) not in kept for kept in done)]
        starts = range(0, len(left), config.batch_size)
        items += [{"positions": left[start : start + config.batch_size], "view": view} for start in starts]
    return items


def _answered(folder: str, kind: Kind) -> set[tuple[str, int]]:
    """(id, view) of what is stored already."""
    table = _pieces(folder, kind)
    return set(zip(table.column("id").to_pylist(), table.column("view").to_pylist(), strict=True))


def _pieces(folder: str, kind: Kind) -> pa.Table:
    """What the finished shards hold. An answer that is there twice, since an interrupted batch was cut anew, counts once."""
    path = storage.join(folder, kind)
    names = [name for name in storage.list_dir(path) if name.startswith("shard-") and name.endswith(".parquet")]
    tables = [ANSWERS_SCHEMA.empty_table(), *(read_table(storage.join(path, name)) for name in names)]
    table = pa.concat_tables(tables).sort_by([("id", "ascending"), ("view", "ascending")])
    ids, views = table.column("id").to_pylist(), table.column("view").to_pylist()
    first = [n == 0 or (ids[n], views[n]) != (ids[n - 1], views[n - 1]) for n in range(len(ids))]
    return table.filter(pa.array(first, pa.bool_()))


def _finish(folder: str, kind: Kind, plan: Mapping[str, Any], answers: int) -> None:
    """Write the index, and `store.json` last."""
    path, table = storage.join(folder, kind), _pieces(folder, kind)
    if table.num_rows != answers:
        raise UserError(f"{path}: {table.num_rows} of {answers} answers are there; run the same command again")
    write_parquet(table, storage.join(path, INDEX_FILE))
    kept = set(pc.unique(table.column("shard")).to_pylist())
    files = {name: size for name, size in storage.sizes_in(path).items() if name in kept}
    made = {**plan, "answers": answers, "bytes": sum(files.values()), "files": files, **_shape(folder, kind, table)}
    storage.write_text(storage.join(path, STORE_FILE), json.dumps(made, indent=2))


def _shape(folder: str, kind: Kind, table: pa.Table) -> dict[str, int]:
    """Sizes that a reader needs, from the first shard's own metadata."""
    name = table.column("shard")[0].as_py()
    path = storage.join(folder, kind, name.replace(".arrow", ".json"))
    return json.loads(storage.read_bytes(path))


@dataclass(frozen=True)
class _Job:
    """What every actor gets."""

    folder: str
    kinds: tuple[Kind, ...]
    teacher: WhisperTarget
    corpus: Corpus
    collate: SpeechCollate
    kept_tokens: tuple[int, ...] | None
    config: CacheConfig

    def start(self, device: torch.device) -> Callable[[Item], int]:
        """Load the teacher."""
        from raykd.models.pruning import prune_whisper
        from raykd.models.whisper import load_whisper

        model: Any = load_whisper(self.teacher.model, compute_dtype(self.teacher.dtype, device), self.teacher.revision)
        if self.kept_tokens is not None:
            prune_whisper(model, self.kept_tokens)
        model = model.to(device).requires_grad_(False)
        return _Keeper(self, model, device)


class _Keeper:
    """Answers batches and stores the answers."""

    def __init__(self, job: _Job, model: Any, device: torch.device) -> None:
        self._job, self._model, self._device = job, model, device
        self._index = job.corpus.index("train")

    @torch.no_grad()
    def __call__(self, item: Item) -> int:
        job, index, positions, view = self._job, self._index, np.asarray(item["positions"]), int(item["view"])
        rows = read_rows(job.corpus.path, index.shard_names, index.shard[positions], index.row[positions])
        utterances = [utterance_of(row) for row in rows]
        batch = job.collate.batch(rows, view).to(self._device)
        answers: dict[Kind, tuple[list[dict[str, bytes]], dict[str, int]]] = {}
        with speaking(self._model, batch.languages):
            states_BSD = self._model.model.encoder(batch.mel_BMF.to(self._model.dtype)).last_hidden_state
            if "topk" in job.kinds:
                answers["topk"] = self._topk(batch, states_BSD)
            if "encoder" in job.kinds:
                answers["encoder"] = self._states(states_BSD)
        for kind, (values, shape) in answers.items():
            digests = [digest_of(utterance, kind) for utterance in utterances]
            _store(storage.join(job.folder, kind), kind, batch.ids, digests, view, values, shape)
        return len(rows)

    def _topk(self, batch: Any, states_BSD: torch.Tensor) -> tuple[list[dict[str, bytes]], dict[str, int]]:
        hidden_BUD = self._model.model.decoder(
            input_ids=batch.decoder_input_BU, encoder_hidden_states=states_BSD, use_cache=False
        ).last_hidden_state
        weight_VD = self._model.proj_out.weight
        head = HeadDistribution(hidden_BUD.flatten(0, 1)[batch.valid_N], weight_VD)
        k = min(self._job.config.k, len(weight_VD) - 1)
        tokens_NK, log_NK, tail_NT = likeliest(head, k, self._job.config.temperatures)
        counts = np.bincount(batch.utterance_N.cpu().numpy(), minlength=len(batch.ids))
        ends = np.cumsum(counts)
        vocabulary = len(weight_VD)
        whole = {
            "tokens": tokens_NK.cpu().numpy().astype(token_type(vocabulary)),
            "log_probs": log_NK.cpu().numpy(),
            "log_tail": tail_NT.float().cpu().numpy(),
        }
        values = [
            {name: value[end - count : end].tobytes() for name, value in whole.items()}
            for end, count in zip(ends, counts, strict=True)
        ]
        return values, {"entries": k, "vocabulary": vocabulary}

    def _states(self, states_BSD: torch.Tensor) -> tuple[list[dict[str, bytes]], dict[str, int]]:
        kept_BSD, scale_BD = narrowed(states_BSD, self._job.config.states)
        states: NDArray[Any] = kept_BSD.cpu().numpy()
        scales = [b""] * len(states) if scale_BD is None else [row.tobytes() for row in scale_BD.cpu().numpy()]
        values = [{"states": row.tobytes(), "scale": scale} for row, scale in zip(states, scales, strict=True)]
        return values, {"positions": states.shape[1], "width": states.shape[2]}


def _store(
    path: str,
    kind: Kind,
    ids: Sequence[str],
    digests: Sequence[str],
    view: int,
    values: Sequence[Mapping[str, bytes]],
    shape: Mapping[str, int],
) -> None:
    """Write a shard, and then what is in it. A shard is named by its answers: one that is made again is the same file."""
    name = hashlib.blake2b(json.dumps([list(ids), view]).encode(), digest_size=12).hexdigest()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMAS[kind]) as writer:
        for one, value in zip(ids, values, strict=True):
            writer.write_batch(pa.RecordBatch.from_pylist([{"id": one, "view": view, **value}], SCHEMAS[kind]))
    shard = f"shard-{name}.arrow"
    with writing(path):
        storage.write_bytes(storage.join(path, shard), sink.getvalue())
        storage.write_text(storage.join(path, f"shard-{name}.json"), json.dumps(shape))
        rows = [
            {"id": one, "view": view, "digest": digest, "shard": shard, "row": row}
            for row, (one, digest) in enumerate(zip(ids, digests, strict=True))
        ]
        write_parquet(pa.Table.from_pylist(rows, ANSWERS_SCHEMA), storage.join(path, f"shard-{name}.parquet"))
