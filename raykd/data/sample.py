"""A few rows of each source as a corpus of their own, in seconds and without Ray: what `--check` looks at first."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from raykd import storage
from raykd.config.data import DataConfig
from raykd.config.text import TextConfig
from raykd.data.format import SpeechFormat
from raykd.data.languages import configured_language
from raykd.data.look import look_at
from raykd.data.prepare import commit, settle
from raykd.data.rejects import check_rejects, count_reasons
from raykd.data.shards import OUTCOME_SCHEMA, ShardMaker
from raykd.data.sources import all_parts
from raykd.data.sources.recognise import with_speech_kinds, with_text_kinds
from raykd.data.text import LabelEncoder
from raykd.data.text_corpus import SegmentMaker, commit_text, place
from raykd.data.text_reader import SegmentReader
from raykd.data.text_sources import text_parts
from raykd.data.text_sources.part import RawLine, TextPart
from raykd.data.utterances import tables
from raykd.errors import UserError
from raykd.shown import shown

_ROWS = 200
_PARTS = 40
"""Places of a source that rows are taken from, evenly spread: files are often sorted by split or by speaker."""
_LINES = 5000
_EXAMPLES = 5
_SHOWN = 100


def look_at_speech(config: DataConfig, speech_format: SpeechFormat, needs_text: bool = True) -> list[str]:
    """Lines for the terminal about a sample of the rows: as `look.look_at`, with an example of each kind that is rejected.

    Raises:
        UserError: a source cannot be read, or more of the sample than `max_reject_share` cannot be used.
    """
    config = with_speech_kinds(config)
    parts = all_parts(config, needs_text)
    encoder = LabelEncoder(speech_format.tokenizer, speech_format.tokenizer_revision)
    chosen = _spread(parts, _PARTS)
    each = -(-_ROWS // max(1, len(chosen)))
    with storage.temporary_dir() as folder:
        maker = ShardMaker(folder, config, speech_format, encoder, needs_text)
        batches = [maker.write_shard(table) for part in chosen for table in tables(islice(part.rows(), each))]
        outcomes = pa.concat_tables(batches) if batches else OUTCOME_SCHEMA.empty_table()
        rejected = settle(outcomes, config)[1]
        said = [f"  sample   {outcomes.num_rows} rows, from {len(chosen)} of {len(parts)} parts of the source"]
        examples = _rejected_lines(rejected)
        try:
            check_rejects(count_reasons(rejected), outcomes.num_rows, config.max_reject_share, "below", what="rows of a sample")
        except UserError as error:
            raise UserError("\n".join([str(error), *said, *examples])) from None
        corpus = commit(folder, "sample", config.model_copy(update={"max_reject_share": 1.0}), speech_format, encoder, outcomes)
        return [shown(line) for line in said + look_at(corpus, config, speech_format, needs_text) + examples]


def look_at_text(config: TextConfig, tokenizer: str) -> list[str]:
    """Lines for the terminal about the first lines of each part of a text.

    Raises:
        UserError: a source cannot be read, or nothing is left of the sample.
    """
    language = configured_language(config.language, "text.language")
    assert language is not None
    config = with_text_kinds(config)
    encoder = LabelEncoder(tokenizer)
    parts = text_parts(config, language)
    chosen = _spread(parts, _PARTS)
    firsts = [FirstLines(part, -(-_LINES // max(1, len(chosen)))) for part in chosen]
    with storage.temporary_dir() as folder:
        maker = SegmentMaker(folder, language, encoder)
        blocks = [texts for table in SegmentReader(firsts, config, folder).tables() for texts in table["texts"].to_pylist()]
        written = [maker.write_shard(texts) for texts in blocks]
        outcomes = [place("", [], []), *(place(one["shard"], one["ids"], one["n_tokens"]) for one in written)]
        corpus = commit_text(folder, "sample", config, language, encoder, firsts, pa.concat_tables(outcomes))
    segments = [text for texts in blocks for text in texts]
    summary = corpus.summary
    lines = [
        f"  sample   {summary['lines']['read']} lines, from {len(chosen)} of {len(parts)} parts of the source",
        *(f"  split    {name}: {of['segments']} segments, {of['tokens']} tokens" for name, of in summary["splits"].items()),
        *(f"  reject   {reason}: {count} lines" for reason, count in summary["rejects"].items()),
        *(f"  such as  {json.dumps(text[:_SHOWN], ensure_ascii=False)}" for text in _spread(segments, _EXAMPLES)),
    ]
    return [shown(line) for line in lines]


@dataclass(frozen=True)
class FirstLines:
    """The first lines of a part of a text."""

    part: TextPart
    lines_at_most: int

    @property
    def name(self) -> str:
        """See `TextPart`."""
        return self.part.name

    def lines(self) -> Iterator[RawLine]:
        """See `TextPart`."""
        return islice(self.part.lines(), self.lines_at_most)


def _spread(parts: Sequence[Any], most: int) -> list[Any]:
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(most, len(parts))).round().astype(int)) if parts else ()
    return [parts[position] for position in chosen]


def _rejected_lines(rejected: pa.Table) -> list[str]:
    """An example of each reason."""
    first = {row["reason"]: row for row in reversed(rejected.to_pylist())}
    lines = []
    for reason, row in sorted(first.items()):
        detail = f" ({row['detail'][:_SHOWN]})" if row["detail"] else ""
        lines.append(f"  rejected {row['id']}: {reason}{detail}")
    return lines
