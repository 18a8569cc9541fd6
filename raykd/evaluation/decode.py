"""Batched greedy decoding with Whisper, each row in its own language.

A loop of our own over transformers' modules and caches, because `generate` takes 1.1 times (4 + 4 layers, width 256) to 2.5
times (demo size) as long on a CPU, wants language ids in the generation config, and keeps decoding rows that have ended. The
tokens are the same.

B rows of the batch, L rows not yet ended, M mel channels, F frames, S encoder positions, P prefix tokens, V vocabulary,
D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from raykd.data.text import LabelEncoder
from raykd.models.routing import keep_rows, speaking
from raykd.models.window import encoder_states

LogitsRule = Callable[[Tensor, Tensor], Tensor]
"""(token ids so far, prefix included; logits) -> logits, as transformers' logits processors."""


@dataclass
class Confidence:
    """How sure a model was of a transcript, by Whisper's own measures (openai/whisper, decoding.py)."""

    log_prob: float = 0.0
    """Sum over the chosen tokens, the end of text included; of the probabilities that were left after suppression."""
    tokens: int = 0
    """Chosen tokens without the end of text."""
    no_speech_prob: float = 0.0
    """Probability of the no-speech token right after the start token."""

    @property
    def avg_log_prob(self) -> float:
        """Of a token, counted with the end of text, as Whisper does."""
        return self.log_prob / (self.tokens + 1)


@torch.inference_mode()
def encode(model: WhisperForConditionalGeneration, mel_BMF: Tensor) -> Tensor:
    """states_BSD of the model's encoder. mel_BMF: features of its window (`models.window.heard_frames`). With language experts:
    inside of `models.routing.speaking`."""
    return encoder_states(model.model.encoder, mel_BMF.to(model.device, model.dtype))


@torch.inference_mode()
def greedy_decode(
    model: WhisperForConditionalGeneration,
    states_BSD: Tensor,
    prefix_BP: Tensor,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    *,
    rule: LogitsRule | None = None,
    confidences: Sequence[Confidence] | None = None,
    no_speech_id: int | None = None,
) -> list[list[int]]:
    """The likeliest next token, again and again, until a stop token or the limit.

    The generation config's `suppress_tokens` are never chosen, its `begin_suppress_tokens` not as the first.

    Args:
        model: in eval mode; its device and dtype are used.
        states_BSD: of the model's encoder (`encode`).
        prefix_BP: the tokens that are given, such as start, language, task and no-timestamps.
        max_new_tokens: also bounded by the model's positions.
        stop_ids: tokens that end a row.
        rule: changes the logits after that, such as Whisper's rule for timestamps.
        confidences: one a row, filled in here. It takes a softmax at each position.
        no_speech_id: the token that `Confidence.no_speech_prob` is of.

    Returns:
        The new tokens of each row, without the stop token.
    """
    rows = _Rows(len(states_BSD), stop_ids, confidences)
    encoded_LSD, cache = states_BSD, EncoderDecoderCache(DynamicCache(), DynamicCache())
    so_far_LT = inputs_LP = prefix_BP.to(model.device)
    never, not_first = _suppressed(model)
    for position in range(min(max_new_tokens, model.config.max_target_positions - prefix_BP.shape[1])):
        states_LPD = model.model.decoder(
            input_ids=inputs_LP, encoder_hidden_states=encoded_LSD, past_key_values=cache, use_cache=True
        ).last_hidden_state
        if position == 0 and confidences and no_speech_id is not None:
            silent_L = model.proj_out(states_LPD[:, 0]).float().softmax(-1)[:, no_speech_id]
            for confidence, probability in zip(confidences, silent_L.tolist(), strict=True):
                confidence.no_speech_prob = probability
        logits_LV = model.proj_out(states_LPD[:, -1])
        logits_LV[:, not_first if position == 0 else never] = -torch.inf
        if rule is not None:
            logits_LV = rule(so_far_LT, logits_LV)
        next_L = logits_LV.argmax(dim=-1)
        rows.add(next_L, logits_LV)
        if all(rows.ended):
            break
        so_far_LT = torch.cat((so_far_LT, next_L[:, None]), 1)
        if sum(rows.ended) * 2 >= len(rows.ended):
            # Going on with the open rows only costs one copy of their cache, so it is done each time half have ended.
            places = rows.drop_ended()
            kept_L = torch.tensor(places, device=model.device)
            cache.batch_select_indices(kept_L)
            keep_rows(model, places)
            encoded_LSD, next_L, so_far_LT = encoded_LSD[kept_L], next_L[kept_L], so_far_LT[kept_L]
        inputs_LP = next_L[:, None]
    return rows.texts


class _Rows:
    """What the rows of a batch say so far. Those that are still computed have places; some of these may have ended."""

    def __init__(self, count: int, stop_ids: Sequence[int], confidences: Sequence[Confidence] | None) -> None:
        self.texts: list[list[int]] = [[] for _ in range(count)]
        self.ended = [False] * count
        """Of each place."""
        self._row_of_place = list(range(count))
        self._stop_ids, self._confidences = frozenset(stop_ids), confidences

    def add(self, next_L: Tensor, logits_LV: Tensor) -> None:
        """The token that each place says next."""
        tokens = next_L.tolist()
        if self._confidences:
            chosen_L = logits_LV.float().log_softmax(-1).gather(1, next_L[:, None])[:, 0]
            for row, ended, token, log_prob in zip(self._row_of_place, self.ended, tokens, chosen_L.tolist(), strict=True):
                if not ended:
                    self._confidences[row].log_prob += log_prob
                    self._confidences[row].tokens += token not in self._stop_ids
        for place, token in enumerate(tokens):
            if token in self._stop_ids:
                self.ended[place] = True
            elif not self.ended[place]:
                self.texts[self._row_of_place[place]].append(token)

    def drop_ended(self) -> list[int]:
        """Leave the rows that have ended; the places of the others until now."""
        places = [place for place, ended in enumerate(self.ended) if not ended]
        self._row_of_place = [self._row_of_place[place] for place in places]
        self.ended = [False] * len(places)
        return places


def transcribe(
    model: WhisperForConditionalGeneration,
    encoder: LabelEncoder,
    states_BSD: Tensor,
    languages: Sequence[str],
    max_new_tokens: int,
) -> list[str]:
    """Greedy transcripts of a batch, each row in its own language. states_BSD: of the model's encoder (`encode`), in these
    languages where it has experts for them.

    Raises:
        ValueError: a language that the model's vocabulary does not have.
    """
    prefix_BP = torch.tensor([encoder.prefix(language) for language in languages])
    with speaking(model, languages):
        tokens = greedy_decode(model, states_BSD, prefix_BP, max_new_tokens, stop_ids=[encoder.eot_id])
    return [encoder.decode(row) for row in tokens]


def _suppressed(model: WhisperForConditionalGeneration) -> tuple[Tensor, Tensor]:
    """Ids that are never chosen, and ids that are not chosen first."""
    config = model.generation_config
    always = set(config.suppress_tokens or ())
    at_first = always.union(config.begin_suppress_tokens or ())
    vocabulary = range(model.config.vocab_size)
    never, not_first = (
        torch.tensor([token for token in sorted(tokens) if token in vocabulary], dtype=torch.long, device=model.device)
        for tokens in (always, at_first)
    )
    return never, not_first
