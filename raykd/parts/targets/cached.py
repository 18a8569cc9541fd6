"""A Whisper as a teacher whose answers were kept: `python -m raykd.label --cache topk|encoder|both`.

Shapes: B utterances, N valid tokens, K likeliest tokens, T temperatures, S encoder positions, D width.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from raykd import storage
from raykd.config.base import Mark
from raykd.config.schedule import ScheduleConfig
from raykd.data.batches import Batch
from raykd.data.corpus import Corpus, read_utterances
from raykd.data.teacher_cache import CacheReader, Kind, Store, digest_of, open_stores
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.models.state import whole_hash
from raykd.parts.contexts.gold import Gold
from raykd.parts.distribution import TopKDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.targets.target import TEACHER, LiveTarget, Ready
from raykd.parts.targets.whisper import WhisperTarget

if TYPE_CHECKING:
    from raykd.parts.recipes.recipe import Method
    from raykd.parts.worker import Worker

_AT_ONCE = 256
_AGAIN = "make the cache again with `python -m raykd.label --cache ...` and this config"


class CachedTarget(WhisperTarget):
    """A Whisper whose answers were kept (`python -m raykd.label --cache topk|encoder|both`): in training it is not loaded.

    With likeliest tokens (`topk`) neither its encoder nor its decoder runs. A student whose frozen encoder is the same reads
    its encoder states where they were kept (`encoder`); with these alone, the teacher's decoder runs on them. `model` still
    says which teacher it is: the student's layers are copied from it, its hash must be the cache's, and it is evaluated beside
    the student.
    """

    kind: Literal["cached"] = "cached"  # type: ignore[assignment]
    path: Annotated[str | None, Mark.PATH] = None
    """Folder of the cache; None: the place in `data.cache_dir` where `raykd.label` puts that of this teacher and these data."""

    def stores(self) -> dict[Kind, Store]:
        """What was kept.

        Raises:
            UserError: nothing was, or it is damaged.
        """
        if self.path is None:
            raise UserError("objective.targets: a cached target needs `path`, the folder of its cache")
        return open_stores(self.path)

    def reader(self) -> CacheReader:
        """Of whatever was kept."""
        return CacheReader(self.stores())

    def check(self, ready: Ready) -> None:
        """The answers were given by this teacher, about these utterances, heard and read like this.

        Raises:
            UserError: they were not; it names all that differs.
        """
        wrong: dict[str, None] = {}
        for store in self.stores().values():
            of_store = [*_other_method(store, ready), *_other_teacher(store, ready)]
            wrong |= dict.fromkeys(of_store or _other_utterances(store, ready.corpus))
        if wrong:
            raise UserError(f"teacher.path: {self.path} does not fit this run: {'; '.join(wrong)}; {_AGAIN}")

    def build(self, on: "Worker") -> LiveTarget:
        """Nothing of the teacher where its likeliest tokens were kept, else its decoder."""
        stores, theirs = self.stores(), on.student.frozen_encoder
        if "topk" not in stores:
            teacher = self.loaded(on)
            teacher.encoder.reads_cache = True
            return teacher
        if "encoder" in stores and theirs is not None:
            theirs.reads_cache = whole_hash(theirs.module) == stores["encoder"].made["encoder_hash"]
        return CachedTeacher(stores["topk"].made)


class CachedTeacher(LiveTarget):
    """Answers that come with the batch."""

    runs_a_model: ClassVar = False

    def __init__(self, made: Mapping[str, Any]) -> None:
        """`made`: of the store of likeliest tokens."""
        self._temperatures, self._vocabulary = made["temperatures"], made["vocabulary"]

    def outputs(self, batch: Batch, wanted: frozenset[str], others: Mapping[str, Outputs]) -> Outputs:
        """See `LiveTarget`."""
        kept = batch.kept
        tails = {one: kept["log_tail_NT"][:, number] for number, one in enumerate(self._temperatures)}
        return Outputs(TopKDistribution(kept["tokens_NK"], kept["log_probs_NK"], tails, self._vocabulary))


def asked(kind: Kind, ready: Ready) -> dict[str, Any]:
    """All that answers of a kind hang on beside the utterances: a store says the same of itself, or it is of another run."""
    changes = [one.model_dump(mode="json") for one in ready.method.inputs if one.changes_rows and one.reaches_targets()]
    facts: dict[str, Any] = {
        "encoder_hash": ready.encoder_hash,
        "mel_channels": ready.speech_format.n_mels,
        "window_frames": ready.speech_format.window_frames,
        "inputs": changes,
        "seed": ready.seed if changes else None,
    }
    if kind == "topk":
        encoder = LabelEncoder(ready.speech_format.tokenizer, ready.speech_format.tokenizer_revision)
        facts |= {"teacher_hash": ready.teacher_hash, "tokenizer": encoder.fingerprint}
        kept = ready.kept_tokens
        facts["kept_tokens"] = kept and hashlib.sha256(repr(kept).encode()).hexdigest()
    return facts


def cache_folder(cache_dir: str, ready: Ready) -> str:
    """Where the cache of a teacher, some data and their random changes is put, unless a path is given."""
    asked_for = asked("topk", ready)
    if asked_for["kept_tokens"] is None:
        del asked_for["kept_tokens"]  # caches that were made before vocabularies could be cut are found
    facts = json.dumps([asked_for, ready.corpus.key], sort_keys=True)
    return storage.join(cache_dir, "teacher_caches", hashlib.sha256(facts.encode()).hexdigest()[:16])


def unanswerable(method: "Method") -> Iterator[str]:
    """What of a method no teacher can answer ahead."""
    if not isinstance(method.context, Gold):
        yield f"the decoder reads other tokens than the labels (context {method.context.kind}), which nobody can answer ahead"
    if isinstance(teacher := method.targets.get(TEACHER), WhisperTarget) and teacher.learns:
        yield "the teacher learns while it teaches, so its answers change"
    live = [one.kind for one in method.inputs if not one.changes_rows and one.reaches_targets()]
    if live:
        yield f"the speech is changed while training (input {', '.join(live)}), which nobody can answer ahead"


def unkept(method: "Method", temperatures: Sequence[float]) -> Iterator[str]:
    """What of a method the likeliest tokens and their tails at some temperatures do not serve."""
    taught = [term for term in method.terms if TEACHER in method.needed([term])]
    missing = sorted({need for term in taught for need in term.needs})
    if missing:
        yield f"the objective wants the teacher's {', '.join(missing).replace('_', ' ')}, which are not kept with its tokens"
    for term in taught:
        for temperature in term.target_temperatures():
            if isinstance(temperature, ScheduleConfig):
                yield f"{term.name} changes the teacher's temperature over training, and a cache knows a few temperatures only"
            elif temperature not in temperatures:
                known = ", ".join(f"{one:g}" for one in temperatures)
                yield f"{term.name} has the teacher at temperature {temperature:g}, and the cache at {known}"


def _other_method(store: Store, ready: Ready) -> Iterator[str]:
    """What of the method the answers do not serve."""
    yield from unanswerable(ready.method)
    if store.kind == "topk":
        yield from unkept(ready.method, store.made["temperatures"])


def _other_teacher(store: Store, ready: Ready) -> Iterator[str]:
    """What of the circumstances differs."""
    for name, now in asked(store.kind, ready).items():
        was = store.made.get(name)
        if was != now:
            yield f"{name.replace('_', ' ')} of {store.kind} was {_short(was)} and is {_short(now)}"


def _short(value: Any) -> str:
    """Of a hash, its beginning."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 16 else str(value)


def _other_utterances(store: Store, corpus: Corpus) -> Iterator[str]:
    """Training utterances that are not in it, or were others."""
    if store.made["corpus"] == corpus.key:
        return
    index = corpus.index("train")
    known = store.answers().digests
    missing = [one for one in index.ids if one not in known]
    if missing:
        yield f"{store.kind}: {len(missing)} of {len(index)} training utterances are not in it, such as {missing[0]}"
    there = [position for position, one in enumerate(index.ids) if one in known]
    changed = []
    for start in range(0, len(there), _AT_ONCE):
        for utterance in read_utterances(corpus.path, index, there[start : start + _AT_ONCE]):
            if known[utterance.id] != digest_of(utterance, store.kind):
                changed.append(utterance.id)
    if changed:
        what = "speech or labels" if store.kind == "topk" else "speech"
        yield f"{store.kind}: {what} of {len(changed)} training utterances changed, such as {changed[0]}"
