"""Loss and arg-max error rates with gold prefixes: one decoder pass in which every position is given the true tokens before it.

The rates are no error rates of a recogniser, which must live with its own mistakes; they are there for comparison with the
published Czech table (WER 0.447 and 0.345), which is measured like this. As there, texts keep their special tokens, no
normaliser is applied and every label position counts: the language, task and no-timestamps tokens and the end of text. Unlike
there, padding is left out (the published code compares long runs of `<|endoftext|>` on both sides wherever a row is shorter
than its batch's longest, which alone lowers the character error rate), and the rates are over the corpus (there: the mean over
batches).

B utterances, S encoder positions, U label positions, N valid label positions, D width, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from raykd.data.batches import IGNORED_LABEL
from raykd.data.text import LabelEncoder
from raykd.evaluation.scoring import TeacherForced, character_edits, word_edits
from raykd.parts.distribution import HeadDistribution
from raykd.training.objective import default_chunk_tokens


@torch.inference_mode()
def teacher_forced(
    model: WhisperForConditionalGeneration,
    encoder: LabelEncoder,
    states_BSD: Tensor,
    decoder_input_BU: Tensor,
    labels_BU: Tensor,
) -> list[TeacherForced]:
    """What the model gives each utterance's gold tokens, and which tokens it finds likeliest in their places.

    Nothing is suppressed, and logits exist for one chunk of label positions at a time.

    Args:
        model: in eval mode; its device and dtype are used.
        encoder: of the model's vocabulary.
        states_BSD: the model's own encoder states.
        decoder_input_BU: each token sequence without its last token.
        labels_BU: each token sequence without its first token, filled with `IGNORED_LABEL`.
    """
    hidden_BUD = model.model.decoder(
        input_ids=decoder_input_BU.to(model.device), encoder_hidden_states=states_BSD, use_cache=False
    ).last_hidden_state
    labels_BU = labels_BU.to(model.device)
    valid_BU = labels_BU != IGNORED_LABEL
    labels_N = labels_BU[valid_BU]
    loss_N, best_N = _loss_and_best(HeadDistribution(hidden_BUD[valid_BU], model.proj_out.weight), labels_N)
    lengths = valid_BU.sum(dim=1).tolist()
    references = [encoder.decode(row.tolist(), keep_special=True) for row in labels_N.split(lengths)]
    hypotheses = [encoder.decode(row.tolist(), keep_special=True) for row in best_N.split(lengths)]
    losses = [float(row.sum()) for row in loss_N.split(lengths)]
    words, characters = word_edits(references, hypotheses), character_edits(references, hypotheses)
    return [TeacherForced(*values) for values in zip(hypotheses, losses, lengths, words, characters, strict=True)]


def _loss_and_best(head: HeadDistribution, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """loss_N, -log p of each label in nats (float64), and best_N, the likeliest tokens."""
    chunk = default_chunk_tokens(head.hidden_ND.shape[1], labels_N.device)
    losses, best = [], []
    for begin in range(0, len(labels_N), chunk):
        tokens = slice(begin, begin + chunk)
        log_NV = head.log_probs(tokens, temperature=1.0)
        losses.append(-log_NV.gather(1, labels_N[tokens, None]).squeeze(1).double())
        best.append(log_NV.argmax(dim=-1))
    return torch.cat(losses), torch.cat(best)
