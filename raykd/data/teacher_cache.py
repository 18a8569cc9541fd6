"""What a teacher says about each utterance, kept on storage: likeliest tokens, encoder states, or both.

A cache is a folder on any pyarrow filesystem with a store for each kind of answer, `topk/` and `encoder/`:

- `shard-*.arrow`: Arrow IPC files, uncompressed, one record batch an answer, so that an answer is mapped and found in O(1);
- `shard-*.parquet`: what is in each, written after it; a shard without is not finished;
- `index.parquet`: all of these, sorted by id and view;
- `store.json`: what it was made with. It is written last; a folder without it is no store.

A *view* is one way that random changes of the speech (`inputs`) fall out: epoch e hears view e modulo the number of views.

Shapes: U label positions of an utterance, N those of a batch, K likeliest tokens, T temperatures, B utterances, S encoder
positions, D width.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from raykd import storage
from raykd.data.corpus import InShards, Utterance, read_rows
from raykd.errors import UserError

Kind = Literal["topk", "encoder"]
KINDS: tuple[Kind, ...] = ("topk", "encoder")
INDEX_FILE = "index.parquet"
STORE_FILE = "store.json"

TOPK_SCHEMA = pa.schema(
    [("id", pa.string()), ("view", pa.int32()), ("tokens", pa.binary()), ("log_probs", pa.binary()), ("log_tail", pa.binary())]
)
"""tokens_UK (unsigned, `Store.token_type`), log_probs_UK (float16) at temperature 1, log_tail_UT (float32)."""
ENCODER_SCHEMA = pa.schema([("id", pa.string()), ("view", pa.int32()), ("states", pa.binary()), ("scale", pa.binary())])
"""states_SD (float16, or int8 times scale_D); scale_D (float32) is empty for float16."""
ANSWERS_SCHEMA = pa.schema(
    [("id", pa.string()), ("view", pa.int32()), ("digest", pa.string()), ("shard", pa.string()), ("row", pa.int32())]
)
"""One row an answer: `digest` is of what was asked (`digest_of`)."""
SCHEMAS: dict[Kind, pa.Schema] = {"topk": TOPK_SCHEMA, "encoder": ENCODER_SCHEMA}


def digest_of(utterance: Utterance, kind: Kind) -> str:
    """Hash of what the teacher hears (mel) and, where its tokens are kept, reads (ids): encoder states serve any labels."""
    digest = hashlib.blake2b(utterance.mel.tobytes(), digest_size=12)
    if kind == "topk":
        digest.update(np.asarray(utterance.tokens, np.int32).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """One kind of answer of one teacher. Picklable and small."""

    path: str
    kind: Kind
    made: Mapping[str, Any]
    """`store.json`."""

    @property
    def views(self) -> int:
        """Ways that random changes of the speech fell out."""
        return self.made["views"]

    @property
    def token_type(self) -> type[np.unsignedinteger[Any]]:
        """Of token ids on storage."""
        return token_type(self.made["vocabulary"])

    def answers(self) -> "Answers":
        """Where the answers lie; read once a process."""
        return _answers(self.path)

    def rows(self, ids: Sequence[str], view: int) -> list[pa.RecordBatch]:
        """The answers about some utterances, one row each.

        Raises:
            KeyError: there is none about one of them.
        """
        answers = self.answers()
        places = np.array([answers.place(one, view) for one in ids])
        return read_rows(self.path, answers.shard_names, answers.shard[places], answers.row[places])


class Answers(InShards):
    """The index of a store."""

    @cached_property
    def _keys(self) -> list[tuple[str, int]]:
        return list(zip(self.table.column("id").to_pylist(), self.table.column("view").to_pylist(), strict=True))

    def place(self, utterance_id: str, view: int) -> int:
        """Row of the index. Raises KeyError: there is none."""
        key = (utterance_id, view)
        place = bisect_left(self._keys, key)
        if place == len(self._keys) or self._keys[place] != key:
            raise KeyError(key)
        return place

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of what was asked about each utterance."""
        return dict(zip(self.table.column("id").to_pylist(), self.table.column("digest").to_pylist(), strict=True))


@lru_cache(maxsize=8)
def _answers(path: str) -> Answers:
    return Answers(read_table(storage.join(path, INDEX_FILE)))


def read_table(path: str) -> pa.Table:
    """A Parquet file on any filesystem."""
    filesystem, inner = storage.filesystem_of(path)
    return pq.read_table(inner, filesystem=filesystem)


def open_store(folder: str, kind: Kind) -> Store | None:
    """The finished store of a kind in a cache; None when there is none.

    Raises:
        UserError: it cannot be read, or a shard is missing or of another size than it was written with.
    """
    path = storage.join(folder, kind)
    try:
        if not storage.exists(storage.join(path, STORE_FILE)):
            return None
        made = json.loads(storage.read_bytes(storage.join(path, STORE_FILE)))
        found = storage.sizes_in(path)
        damaged = sorted(name for name, size in made["files"].items() if found.get(name) != size)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); remove the folder and make the cache again") from None
    if damaged:
        name = damaged[0]
        has = f"has {found[name]} bytes instead of {made['files'][name]}" if name in found else "is missing"
        raise UserError(f"{path}: {name} {has}; remove the folder and make the cache again")
    return Store(path, kind, made)


def open_stores(folder: str) -> dict[Kind, Store]:
    """The finished stores of a cache, at least one.

    Raises:
        UserError: there is none, or one is damaged.
    """
    found = {kind: store for kind in KINDS if (store := open_store(folder, kind)) is not None}
    if not found:
        raise UserError(f"teacher.path: {folder} holds no finished cache; make it with `python -m raykd.label --cache both`")
    views = {store.views for store in found.values()}
    if len(views) > 1:
        raise UserError(f"teacher.path: {folder}: topk and encoder have different views; make both with --cache both")
    return found


def token_type(vocabulary: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest type for token ids."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


@dataclass(frozen=True)
class CacheReader:
    """Reads what the stores of a cache hold about the utterances of a batch. Picklable."""

    stores: Mapping[Kind, Store]

    @property
    def views(self) -> int:
        """Of all stores."""
        return next(iter(self.stores.values())).views

    def read(self, ids: Sequence[str], epoch: int, placeholder: bool = False) -> dict[str, Tensor]:
        """By name: `tokens_NK`, `log_probs_NK`, `log_tail_NT`, `states_BSD` and, of 8-bit states, `scale_B1D`.

        Of a placeholder, which has no valid position, N is 0.
        """
        view = epoch % self.views
        found: dict[str, Tensor] = {}
        if topk := self.stores.get("topk"):
            found |= _topk(topk, ids, view, 0 if placeholder else None)
        if encoder := self.stores.get("encoder"):
            found |= _encoder(encoder, ids, view)
        return found


def _topk(store: Store, ids: Sequence[str], view: int, positions: int | None) -> dict[str, Tensor]:
    rows = store.rows(ids, view)

    def whole(name: str, kind: Any, width: int) -> NDArray[Any]:
        parts = [np.frombuffer(row.column(name)[0].as_buffer(), kind).reshape(-1, width) for row in rows]
        return np.concatenate(parts)[:positions]

    k, temperatures = store.made["entries"], len(store.made["temperatures"])
    return {
        "tokens_NK": torch.from_numpy(whole("tokens", store.token_type, k).astype(np.int64)),
        "log_probs_NK": torch.from_numpy(whole("log_probs", np.float16, k)),
        "log_tail_NT": torch.from_numpy(whole("log_tail", np.float32, temperatures)),
    }


def _encoder(store: Store, ids: Sequence[str], view: int) -> dict[str, Tensor]:
    rows, width = store.rows(ids, view), store.made["width"]
    narrow = store.made["states"] == "int8"
    states_BSD = _stacked(rows, "states", np.int8 if narrow else np.float16, (-1, width))
    return {"states_BSD": states_BSD, **({"scale_B1D": _stacked(rows, "scale", np.float32, (1, width))} if narrow else {})}


def _stacked(rows: Sequence[pa.RecordBatch], name: str, kind: Any, shape: tuple[int, ...]) -> Tensor:
    """One copy, from the mapped file into the batch."""
    arrays = [np.frombuffer(row.column(name)[0].as_buffer(), kind).reshape(shape) for row in rows]
    return torch.from_numpy(np.stack(arrays))


def kept_states(kept: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """states_BSD that were kept, in a floating type."""
    states_BSD = kept["states_BSD"].to(dtype)
    return states_BSD * kept["scale_B1D"].to(dtype) if "scale_B1D" in kept else states_BSD
