"""The objective: all terms of a batch in one pass over chunks of valid tokens, forward and backward together.

Shapes: N valid tokens (of a batch, or of a chunk of it), D width of the hidden states, V vocabulary, K terms; B utterances,
U label positions.

Logits of a whole batch would be the largest tensor of a training step (32 utterances of 100 tokens: 660 MB in float32, several
times over with automatic differentiation). Here logits, softmaxes and their gradients exist for one chunk of tokens at a time,
and each chunk at once adds its part to the gradients of the hidden states and of the output head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raykd.objectives.distribution import TokenDistribution, log_softmax
from raykd.objectives.recipes import ResolvedTerm, targets_needed
from raykd.objectives.terms import LogProbs, cross_entropy, js, kl, reverse_kl

IGNORED_LABEL = -100
"""Marks label positions that are padding. Not the padding token: in Whisper that also ends a sequence, which is learnt."""


@dataclass(frozen=True)
class ObjectiveOutput:
    """The objective over the valid tokens of a batch. Everything is a SUM over tokens: divide by the global token count."""

    loss: Tensor
    """Scalar: sum of weight * term over terms; differentiable once with respect to the hidden states and the head's weight."""
    term_sums: dict[str, Tensor]
    """Each term's own sum without its weight (temperature scaling included), detached scalars."""
    tokens: int


class ObjectiveHead(nn.Module):
    """The objective as a module whose `weight` is the output head's, so that ZeRO-3 gathers it for this forward.

    The weight is a parameter, the same one as the token embedding's where they are tied, and not a copy.
    """

    def __init__(self, weight_VD: Tensor, chunk_tokens: int | None = None) -> None:
        super().__init__()
        self.weight = weight_VD
        self.chunk_tokens = chunk_tokens

    def forward(
        self, hidden_ND: Tensor, labels_N: Tensor, targets: Mapping[str, TokenDistribution], terms: Sequence[ResolvedTerm]
    ) -> tuple[Tensor, Tensor]:
        """Loss and term_sums_K in the order of `terms`, as in `chunked_objective`: tensors only, for the hooks of engines."""
        return _loss_and_sums(hidden_ND, self.weight, labels_N, targets, terms, self.chunk_tokens)


def chunked_objective(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    targets: Mapping[str, TokenDistribution],
    terms: Sequence[ResolvedTerm],
    chunk_tokens: int | None = None,
) -> ObjectiveOutput:
    """All terms of a batch, without a tokens x vocabulary tensor for the batch.

    The hidden states and every target hold the valid tokens only, in the same order (`valid_positions`). Products are taken in
    the type of the weight, or that of `torch.autocast` where it is on; softmaxes in float32, or float64 where the weight is.
    The weight's gradient is accumulated over chunks in float32 or wider. With no valid token the loss is 0, and still has a
    graph, so that an idle worker takes part in backward. Gradients are computed together with the value, unless gradients are
    off or neither input wants one.

    Raises:
        ValueError: labels outside the vocabulary, or a target that is missing or has other tokens or another vocabulary.
    """
    loss, term_sums_K = _loss_and_sums(hidden_ND, weight_VD, labels_N, targets, terms, chunk_tokens)
    names = [term.name for term in terms]
    return ObjectiveOutput(loss, dict(zip(names, term_sums_K.unbind(), strict=True)), len(labels_N))


def valid_positions(labels_BU: Tensor) -> Tensor:
    """Indices_N, into the flattened batch, of the label positions that count."""
    return (labels_BU.flatten() != IGNORED_LABEL).nonzero().squeeze(1)


def default_chunk_tokens(width: int, device: torch.device) -> int:
    """Tokens to a chunk. The work on a chunk takes about 8 float32 tensors of chunk x vocabulary, 1.7 MB a token for Whisper.

    CPU: as many tokens as make that work about as large as the weight's gradient, which every chunk reads and writes once:
    fewer would spend the time on that gradient, many more would leave the cache. Where the best lies depends on the processor
    (benchmarks/RESULTS.md). GPU: 1 024, reckoned and not measured: under 2 GB, and kernel launches and the gradient's pass
    through memory are a few per cent of the softmaxes' time.
    """
    if device.type != "cpu":
        return 1024
    return min(max(width // 8, 48), 96)


def _loss_and_sums(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    targets: Mapping[str, TokenDistribution],
    terms: Sequence[ResolvedTerm],
    chunk_tokens: int | None,
) -> tuple[Tensor, Tensor]:
    _check(hidden_ND, weight_VD, labels_N, targets, terms)
    device = hidden_ND.device
    autocast = torch.is_autocast_enabled(device.type)
    objective = _Objective(
        labels_N=labels_N,
        targets=targets,
        terms=terms,
        chunk_tokens=chunk_tokens or default_chunk_tokens(hidden_ND.shape[1], device),
        compute_dtype=torch.get_autocast_dtype(device.type) if autocast else weight_VD.dtype,
        wants_gradients=torch.is_grad_enabled(),
    )
    with torch.autocast(device.type, enabled=False):
        loss, term_sums_K = _ChunkedObjective.apply(hidden_ND, weight_VD, objective)
    return loss, term_sums_K


def _check(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    targets: Mapping[str, TokenDistribution],
    terms: Sequence[ResolvedTerm],
) -> None:
    tokens, vocabulary = len(hidden_ND), len(weight_VD)
    if len(labels_N) != tokens:
        raise ValueError(f"{len(labels_N)} labels for {tokens} hidden states")
    if ((labels_N < 0) | (labels_N >= vocabulary)).any():
        raise ValueError(f"labels must lie in 0..{vocabulary - 1}; select the valid positions first (`valid_positions`)")
    for name in sorted(targets_needed(terms)):
        if name not in targets:
            raise ValueError(f"no distribution for the target `{name}`")
        if targets[name].shape != (tokens, vocabulary):
            theirs = "{} tokens over {} words".format(*targets[name].shape)
            raise ValueError(f"the target `{name}` has {theirs}, the student {tokens} tokens over {vocabulary}")


@dataclass(frozen=True)
class _Objective:
    """Everything a pass needs besides the two differentiable inputs."""

    labels_N: Tensor
    targets: Mapping[str, TokenDistribution]
    terms: Sequence[ResolvedTerm]
    chunk_tokens: int
    compute_dtype: torch.dtype
    wants_gradients: bool

    def chunks(self) -> Iterator[slice]:
        tokens = len(self.labels_N)
        for start in range(0, tokens, self.chunk_tokens):
            yield slice(start, min(start + self.chunk_tokens, tokens))

    def evaluate(self, logits_NV: Tensor, tokens: slice, wants_gradient: bool) -> tuple[list[Tensor], Tensor | None]:
        """Each term's sum over a chunk, and the gradient of their weighted sum with respect to the chunk's logits.

        There is one softmax for each side and temperature. The logits' own memory becomes the gradient's.
        """
        temperatures = {term.student_temperature for term in self.terms}
        students = {temperature: LogProbs(log_softmax(logits_NV, temperature)) for temperature in temperatures}
        targets: dict[tuple[str, float], LogProbs] = {}
        gradient_NV = logits_NV.zero_() if wants_gradient else None
        sums = []
        for term in self.terms:
            student = students[term.student_temperature]
            scale = term.weight * term.scale / term.student_temperature
            if term.kind == "ce":
                values_N = cross_entropy(student, self.labels_N[tokens], term.label_smoothing, gradient_NV, scale)
            else:
                key = (term.target, term.target_temperature)
                if key not in targets:
                    targets[key] = LogProbs(self.targets[term.target].log_probs(tokens, term.target_temperature))
                if term.kind == "kl":
                    values_N = kl(student, targets[key], gradient_NV, scale)
                elif term.kind == "reverse_kl":
                    values_N = reverse_kl(student, targets[key], gradient_NV, scale)
                else:
                    values_N = js(student, targets[key], term.mix, gradient_NV, scale)
            sums.append(term.scale * values_N.sum(dtype=torch.float64))
        return sums, gradient_NV


class _ChunkedObjective(torch.autograd.Function):
    """Loss and term sums; the gradients are made in `forward` and only scaled in `backward`."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, objective: _Objective) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = (objective.wants_gradients and wanted for wanted in ctx.needs_input_grad[:2])
        wide = torch.float64 if objective.compute_dtype == torch.float64 else torch.float32
        weight_compute_VD = weight_VD.to(objective.compute_dtype)
        term_sums_K = torch.zeros(len(objective.terms), dtype=torch.float64, device=hidden_ND.device)
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if wants_weight else None
        for tokens in objective.chunks():
            chunk_ND = hidden_ND[tokens].to(objective.compute_dtype)
            logits_NV = (chunk_ND @ weight_compute_VD.T).to(wide)
            sums, gradient_NV = objective.evaluate(logits_NV, tokens, wants_hidden or wants_weight)
            if sums:
                term_sums_K += torch.stack(sums)
            if gradient_NV is not None:
                chunk_grad_ND = None if grad_hidden_ND is None else grad_hidden_ND[tokens]
                _add_gradients(gradient_NV, chunk_ND, weight_compute_VD, chunk_grad_ND, grad_weight_VD)
            del logits_NV, gradient_NV  # else they would still take memory while the next chunk's are made
        ctx.gradients = (grad_hidden_ND, grad_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        ctx.mark_non_differentiable(term_sums_K)
        weights_K = term_sums_K.new_tensor([term.weight for term in objective.terms])
        return (weights_K @ term_sums_K).to(wide), term_sums_K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.gradients is None:
            raise RuntimeError("the objective's gradients were used by an earlier backward pass; compute it again")
        # Given away, so that autograd can keep the buffer as the parameter's gradient instead of copying it.
        (grad_hidden_ND, grad_weight_VD), ctx.gradients = ctx.gradients, None
        if grad_hidden_ND is not None:
            grad_hidden_ND.mul_(grad_loss)
        if grad_weight_VD is not None:
            grad_weight_VD = grad_weight_VD.mul_(grad_loss).to(ctx.weight_dtype)
        return grad_hidden_ND, grad_weight_VD, None


def _add_gradients(
    gradient_NV: Tensor, hidden_ND: Tensor, weight_VD: Tensor, grad_hidden_ND: Tensor | None, grad_weight_VD: Tensor | None
) -> None:
    """From a chunk's gradient of the logits: fill that of its hidden states, add its part to the weight's."""
    narrow_NV = gradient_NV.to(hidden_ND.dtype)
    if grad_hidden_ND is not None:
        grad_hidden_ND.copy_(narrow_NV @ weight_VD)
    if grad_weight_VD is not None and grad_weight_VD.dtype == narrow_NV.dtype:
        grad_weight_VD.addmm_(narrow_NV.T, hidden_ND)
    elif grad_weight_VD is not None:
        grad_weight_VD += narrow_NV.T @ hidden_ND
