"""Where a hypothesis differs from its reference, word by word, for reports and terminals."""

from collections.abc import Iterable
from typing import Literal

import jiwer
from rich.markup import escape
from rich.table import Table

Operation = Literal["equal", "sub", "ins", "del"]
Difference = tuple[Operation, str, str]
"""What happened, the reference's words and the hypothesis' words; one of the two is empty for `ins` and `del`."""

_OPERATIONS: dict[str, Operation] = {"equal": "equal", "substitute": "sub", "insert": "ins", "delete": "del"}


def align(reference: str, hypothesis: str) -> list[Difference]:
    """The runs of equal, substituted, inserted and deleted words of one alignment with the fewest edits.

    Both texts should be normalised the way they were scored, so that the marks are the errors that were counted.
    """
    output = jiwer.process_words(reference, hypothesis)
    reference_words, hypothesis_words = output.references[0], output.hypotheses[0]
    return [
        (
            _OPERATIONS[chunk.type],
            " ".join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in output.alignments[0]
    ]


def worst_table(rows: Iterable[tuple[str, float, str, str]]) -> Table:
    """For a terminal: id, WER and marked differences of (id, WER, reference, hypothesis), both texts normalised."""
    title = "worst sentences, as they were scored: [red]-said[/red] [green]+heard instead[/green]"
    table = Table(title=title, title_justify="left")
    table.add_column("id", overflow="fold")
    table.add_column("WER", justify="right")
    table.add_column("differences", overflow="fold")
    for utterance_id, wer, reference, hypothesis in rows:
        table.add_row(escape(utterance_id), f"{wer:.4f}", _marked(reference, hypothesis))
    return table


def _marked(reference: str, hypothesis: str) -> str:
    """The sentence with the words that were lost behind a `-` and those that were put in their place behind a `+`."""
    parts = []
    for operation, said, heard in align(reference, hypothesis):
        if operation == "equal":
            parts.append(escape(said))
            continue
        parts += [f"[red]-{escape(said)}[/red]"] if said else []
        parts += [f"[green]+{escape(heard)}[/green]"] if heard else []
    return " ".join(parts)
