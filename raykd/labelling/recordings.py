"""A teacher's transcripts of whole recordings, cut at its timestamps into utterances of a manifest (`--long-form`).

The folder has `parts/*.json` (a recording each; what is there is not done again, unless it had
failed or the recording or its row is another now), and at the end `segments.jsonl`, a manifest
whose rows are parts of the recordings, and `recordings.json`: of each its length, text, and WER where there is a gold text.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from raykd import storage
from raykd.config import Config
from raykd.config.data import LabelFilter
from raykd.data.files import stamp_of
from raykd.data.labels import why_dropped
from raykd.data.rejects import DUPLICATE_ID, check_rejects
from raykd.data.sources import all_parts
from raykd.data.split_names import chosen_splits
from raykd.data.text import clean
from raykd.errors import UserError
from raykd.evaluation.recogniser import ModelChoice
from raykd.evaluation.recordings import Row, Transcript, transcripts
from raykd.evaluation.scoring import score_sentences
from raykd.labelling.plan import alone, begin, writing
from raykd.labelling.transcripts import compression_ratio

SEGMENTS_FILE = "segments.jsonl"
RECORDINGS_FILE = "recordings.json"
_HANGS_ON = ("id", "path", "start_s", "duration_s", "text", "language", "split")
_EMBEDDED = "a recording that is no file of its own, so that no part of it can be named"


def recordings_plan(config: Config, teacher_hash: str) -> dict[str, Any]:
    """All that the transcripts hang on."""
    return {
        "data": config.data.model_dump(mode="json", exclude={"cache_dir"}),
        "teacher_hash": teacher_hash,
        "long_form": config.evaluation.long_form.model_dump(mode="json"),
        "splits": list(config.label.splits),
    }


def label_recordings(
    config: Config, folder: str, plan: Mapping[str, Any], *, gpus: float, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Transcribe what is not yet transcribed, write the manifest, and return `recordings.json`. Ray must be initialised.

    Raises:
        UserError: the source or teacher cannot be used, or the folder holds other labels or cannot be written.
    """
    assert config.teacher is not None
    teacher, settings = config.teacher, config.evaluation.long_form
    with alone(folder):
        begin(folder, plan)
        rows = [_usable(row) for part in all_parts(config.data, needs_text=False) for row in part.rows()]
        splits = chosen_splits(config.label.splits, {row["split"] for row in rows if row["split"]} | {"train"}, "label.splits")
        rows = [row for row in rows if row["split"] in (None, *splits)]
        rows, twice = _each_id_once(rows)
        done = _done(folder)
        left = [row for row in rows if done.get(row["id"]) != _digest(row)]
        progress(len(rows) - len(left))
        choice = ModelChoice(teacher.model, teacher.revision, dtype=teacher.dtype)
        stream = transcripts(
            left, choice, settings, config.label.batch_size, gpus_per_worker=gpus, workers=config.label.workers
        )
        for number, one in enumerate(stream, len(rows) - len(left) + 1):
            _keep(folder, one)
            progress(number)
        return _finish(folder, [_kept(folder, row["id"]) for row in rows], twice, config)


def _usable(row: Row) -> Row:
    if row["problem"] or row["path"]:
        return {**row, "audio": None}
    return {**row, "audio": None, "problem": _EMBEDDED}


def _each_id_once(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """The first row of each id, and how many others there are."""
    first: dict[str, Row] = {}
    others = sum(first.setdefault(row["id"], row) is not row for row in rows)
    return list(first.values()), others


def _digest(row: Row) -> str:
    """Of all that a transcript and its score hang on; a file by its size and time of change."""
    file = stamp_of(row["path"]) if row["path"] else None
    return hashlib.blake2b(json.dumps([*(row[name] for name in _HANGS_ON), file]).encode(), digest_size=12).hexdigest()


def _piece(folder: str, recording: str) -> str:
    return storage.join(folder, "parts", f"{hashlib.blake2b(recording.encode(), digest_size=12).hexdigest()}.json")


def _done(folder: str) -> dict[str, str]:
    """What was transcribed: the digests of the rows, by id."""
    path = storage.join(folder, "parts")
    names = storage.list_dir(path) if storage.exists(path) else []
    pieces = [json.loads(storage.read_bytes(storage.join(path, name))) for name in names if name.endswith(".json")]
    return {piece["id"]: piece.get("row_digest", "") for piece in pieces if not piece["problem"]}


def _kept(folder: str, recording: str) -> dict[str, Any]:
    return json.loads(storage.read_bytes(_piece(folder, recording)))


def _keep(folder: str, one: Transcript) -> None:
    row = one.row
    piece = {
        **{name: row[name] for name in ("id", "path", "language", "split", "recording", "start_s")},
        "gold": clean(row["text"]) or None,
        "row_digest": _digest(row),
        "problem": one.problem,
        "duration_s": one.duration_s,
        "segments": [asdict(segment) for segment in one.segments],
    }
    with writing(folder):
        storage.write_text(_piece(folder, row["id"]), json.dumps(piece, ensure_ascii=False))


def _finish(folder: str, pieces: list[dict[str, Any]], twice: int, config: Config) -> dict[str, Any]:
    """Write the manifest and the summary. `twice`: rows whose id another one has."""
    reasons = Counter(piece["problem"] for piece in pieces if piece["problem"])
    reasons.update({DUPLICATE_ID: twice} if twice else {})
    check_rejects(dict(reasons.most_common()), len(pieces) + twice, config.data.max_reject_share, None, what="recordings")
    lines, recordings = [], []
    for piece in pieces:
        scored = _scored(piece, config)
        recordings.append(scored)
        for row, reason in _utterances(piece, scored["wer"]):
            if reason:
                reasons[reason] += 1
            else:
                lines.append(row)
    if not lines:
        raise UserError(
            f"{folder}: no utterance is left of {len(pieces)} recordings ({', '.join(reasons) or 'none were found'})"
        )
    words, errors = (sum(one[key] or 0 for one in recordings) for key in ("words", "word_errors"))
    found = {
        "recordings": recordings,
        "hours": sum(one["duration_s"] for one in recordings) / 3600,
        "utterances": len(lines),
        "utterance_hours": sum(one["end"] - one["start"] for one in lines) / 3600,
        "wer": errors / words if words else None,
        "dropped": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }
    with writing(folder):
        storage.write_text(
            storage.join(folder, SEGMENTS_FILE), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        )
        storage.write_text(storage.join(folder, RECORDINGS_FILE), json.dumps(found, indent=2, ensure_ascii=False))
    return found


def _scored(piece: Mapping[str, Any], config: Config) -> dict[str, Any]:
    text = " ".join(one["text"] for one in piece["segments"])
    made = {"id": piece["id"], "duration_s": piece["duration_s"], "text": text, "words": None, "word_errors": None, "wer": None}
    if piece["gold"] is None or piece["problem"]:
        return made
    (sentence,) = score_sentences([piece["gold"]], [text], [piece["language"]], config.evaluation.normalizer)
    return {**made, "words": sentence.words.length, "word_errors": sentence.words.errors, "wer": sentence.words.rate}


def _utterances(piece: Mapping[str, Any], wer: float | None) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Rows of the manifest, each with the reason why it is dropped, if it is."""
    begin_s = piece["start_s"] or 0.0
    for one in piece["segments"]:
        row = {
            "audio": piece["path"],
            "start": round(begin_s + one["start_s"], 2),
            "end": round(begin_s + one["end_s"], 2),
            "text": one["text"],
            "language": piece["language"],
            "recording": piece["id"],
        }
        row |= {"split": piece["split"]} if piece["split"] else {}
        yield row, _why_dropped(row, wer)


def _why_dropped(row: Mapping[str, Any], wer: float | None) -> str | None:
    """As `data.labels` has it. A recording's error rate stands for its utterances'; how sure the teacher was is not known."""
    if row["end"] <= row["start"]:
        return "ends before it begins"
    known = {"text": row["text"], "wer": wer, "compression_ratio": compression_ratio(row["text"])}
    return why_dropped(known, LabelFilter(min_avg_log_prob=None))


def told(found: Mapping[str, Any], folder: str) -> Iterable[str]:
    """The summary, line by line."""
    wer = "" if found["wer"] is None else f", WER {100 * found['wer']:.2f} %"
    yield f"recordings  {len(found['recordings'])}, {found['hours']:.2f} h{wer}"
    yield f"utterances  {found['utterances']}, {found['utterance_hours']:.2f} h"
    if found["dropped"]:
        yield "dropped     " + ", ".join(f"{reason} ({count})" for reason, count in found["dropped"].items())
    yield f"labels      {storage.join(folder, SEGMENTS_FILE)}   (in a config: data.source)"
