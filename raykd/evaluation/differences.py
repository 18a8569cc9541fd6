"""Where a hypothesis differs from its reference, word by word, for reports and terminals."""

from typing import Literal

import jiwer

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
