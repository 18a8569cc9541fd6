"""The objective: all terms of a micro-batch, those over tokens in one pass over chunks of valid tokens, forward and backward
together.

Shapes: N valid tokens (of a batch, or of a chunk of it), D width of the hidden states, V vocabulary, K terms.

Logits of a whole batch would be the largest tensor of a training step (32 utterances of 100 tokens: 660 MB in float32, several
times over with automatic differentiation). Here logits, softmaxes and their gradients exist for one chunk of tokens at a time,
and each chunk at once adds its part to the gradients of the hidden states and of the output head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raykd.parts.clock import Clock
from raykd.parts.distribution import HeadDistribution, TokenDistribution
from raykd.parts.outputs import Outputs
from raykd.parts.part import Live
from raykd.parts.terms.term import STUDENT, Chunk, ClosedForm, OutputTerm, Term, TokenTerm


@dataclass(frozen=True)
class ActiveTerm:
    """A term that counts at a step."""

    term: Term
    weight: float
    """At this step."""
    share: float = 1.0
    """What its sum over a micro-batch is multiplied by, since it counts other tokens than other terms."""
    live: Live | None = None
    """What the term's `build` gave."""

    @property
    def name(self) -> str:
        """Name in metrics."""
        return self.term.name or self.term.kind


class ObjectiveHead(nn.Module):
    """The objective as a module whose `weight` is the output head's, so that ZeRO-3 gathers it for this forward.

    The weight is a parameter, the same one as the token embedding's where they are tied, and not a copy. `others`: output heads
    that train beside it.
    """

    def __init__(self, weight_VD: Tensor, chunk_tokens: int | None = None, others: Sequence[nn.Parameter] = ()) -> None:
        super().__init__()
        self.weight = weight_VD
        for number, parameter in enumerate(others):
            self.register_parameter(f"other_{number}", parameter)
        self.chunk_tokens = chunk_tokens
        self.product_dtype = weight_VD.dtype
        """Type that the products for the logits were taken in, the last time."""

    def forward(
        self, student: Outputs, batch: Any, targets: Mapping[str, Outputs], terms: Sequence[ActiveTerm], clock: Clock
    ) -> tuple[Tensor, Tensor]:
        """See `objective`: tensors only, for the hooks of engines."""
        self.product_dtype = _product_dtype(self.weight)
        return objective(student, self.weight, batch, targets, terms, clock, self.chunk_tokens)


def objective(
    student: Outputs,
    weight_VD: Tensor,
    batch: Any,
    targets: Mapping[str, Outputs],
    terms: Sequence[ActiveTerm],
    clock: Clock,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of weight * share * term over all terms, and term_sums_K: each term's sum over the batch, without weight and share.

    The hidden states, the labels and every target hold the valid tokens only, in the same order. Products are taken in the
    type of the weight, or that of `torch.autocast` where it is on; softmaxes in float32, or float64 where the weight is. The
    weight's gradient is accumulated over chunks in float32 or wider. With no valid token the loss is 0, and still has a graph,
    so that an idle worker takes part in backward. Gradients are computed together with the value, unless gradients are off or
    neither input wants one. Terms of a target that learns have a pass of their own, from its last states and output head, with
    the student among the constants.

    Raises:
        ValueError: labels outside the vocabulary, or a target that is missing or has other tokens or another vocabulary.
    """
    assert student.hidden_ND is not None
    labels_N = batch.labels_N
    _check(student.hidden_ND, weight_VD, labels_N, targets, terms)
    heads = {STUDENT: (student.hidden_ND, weight_VD)}
    said = {name: theirs.distribution for name, theirs in targets.items() if theirs.distribution is not None}
    for name in {active.term.of for active in terms if isinstance(active.term, TokenTerm)} - {STUDENT}:
        heads[name] = _head_of(name, targets)
        said[STUDENT] = HeadDistribution(student.hidden_ND.detach(), weight_VD.detach().to(_product_dtype(weight_VD)))
    loss = student.hidden_ND.new_zeros(())
    sums: dict[str, Tensor] = {}
    for name, (hidden_ND, head_VD) in heads.items():
        own = [active for active in terms if isinstance(active.term, TokenTerm) and active.term.of == name]
        part, sums_K = _over_tokens(name, hidden_ND, head_VD, labels_N, batch, said, own, clock, chunk_tokens)
        loss = loss + part
        sums |= zip((active.name for active in own), sums_K.unbind(), strict=True)
    for active in terms:
        if isinstance(active.term, OutputTerm):
            total = active.term.total(student, targets, batch, clock, active.live)
            loss = loss + active.weight * active.share * total
            sums[active.name] = total.detach().double()
    return loss, torch.stack([sums[active.name] for active in terms]) if terms else loss.new_zeros(0, dtype=torch.float64)


def _head_of(name: str, targets: Mapping[str, Outputs]) -> tuple[Tensor, Tensor]:
    """Last states and output head of a target that learns."""
    said = targets[name]
    assert said.hidden_ND is not None
    assert isinstance(said.distribution, HeadDistribution)
    return said.hidden_ND, said.distribution.weight_VD


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


def _over_tokens(
    of: str,
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    batch: Any,
    targets: Mapping[str, TokenDistribution],
    terms: Sequence[ActiveTerm],
    clock: Clock,
    chunk_tokens: int | None,
) -> tuple[Tensor, Tensor]:
    device = hidden_ND.device
    compute_dtype = _product_dtype(weight_VD)
    work = _Work(
        of=of,
        batch=batch,
        labels_N=labels_N,
        student=HeadDistribution(hidden_ND.detach(), weight_VD.detach().to(compute_dtype)),
        targets=targets,
        terms=terms,
        clock=clock,
        chunk_tokens=chunk_tokens or default_chunk_tokens(hidden_ND.shape[1], device),
        wants_gradients=torch.is_grad_enabled(),
    )
    with torch.autocast(device.type, enabled=False):
        loss, term_sums_K = _ChunkedTerms.apply(hidden_ND, weight_VD, work)
    return loss, term_sums_K


def _product_dtype(weight_VD: Tensor) -> torch.dtype:
    device = weight_VD.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype


def _check(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, targets: Mapping[str, Outputs], terms: Sequence[ActiveTerm]
) -> None:
    tokens, vocabulary = len(hidden_ND), len(weight_VD)
    if len(labels_N) != tokens:
        raise ValueError(f"{len(labels_N)} labels for {tokens} hidden states")
    if ((labels_N < 0) | (labels_N >= vocabulary)).any():
        raise ValueError(f"labels must lie in 0..{vocabulary - 1}; select the valid positions first")
    diverged_from = {name for active in terms if isinstance(active.term, TokenTerm) for name in active.term.runs()}
    for name in sorted({name for active in terms for name in active.term.runs()}):
        distribution = targets[name].distribution if name in targets else None
        if name not in targets or (distribution is None and name in diverged_from):
            raise ValueError(f"no distribution for the target `{name}`")
        if distribution is not None and distribution.shape != (tokens, vocabulary):
            theirs = "{} tokens over {} words".format(*distribution.shape)
            raise ValueError(f"the target `{name}` has {theirs}, the student {tokens} tokens over {vocabulary}")


@dataclass(frozen=True)
class _Work:
    """Everything a pass over the tokens needs besides the two differentiable inputs."""

    of: str
    """Who learns: the student, or a target."""
    batch: Any
    labels_N: Tensor
    student: HeadDistribution
    """Of whoever learns; its weight is in the type that products are taken in."""
    targets: Mapping[str, TokenDistribution]
    terms: Sequence[ActiveTerm]
    clock: Clock
    chunk_tokens: int
    wants_gradients: bool
    memo: dict[str, Tensor] = field(default_factory=dict)

    def chunks(self) -> Iterator[slice]:
        tokens = len(self.labels_N)
        for start in range(0, tokens, self.chunk_tokens):
            yield slice(start, min(start + self.chunk_tokens, tokens))

    def of_labels(self, name: str) -> Tensor:
        """See `Chunk.of_labels`. A pass of its own over all tokens, the first time that a term asks."""
        if name not in self.memo:
            said = self.student if name == self.of else self.targets[name]
            labels_N1 = self.labels_N[:, None]
            parts = [said.log_probs(tokens, 1.0).gather(1, labels_N1[tokens]).squeeze(1) for tokens in self.chunks()]
            self.memo[name] = torch.cat(parts)
        return self.memo[name]

    def evaluate(self, logits_NV: Tensor, tokens: slice, wants_gradient: bool) -> tuple[list[Tensor], Tensor | None]:
        """Each term's sum over a chunk, and the gradient of their weighted sum with respect to the chunk's logits.

        Terms in closed form share one softmax for each side and temperature, and the logits' own memory becomes the gradient's.
        """
        chunk = Chunk(logits_NV, tokens, self.batch, self.labels_N, self.targets, self.clock, self.of_labels, self.of)
        by_autograd = {
            active.name: _by_autograd(active, chunk, logits_NV, wants_gradient) for active in self._without_gradient()
        }
        closed = [active.term for active in self.terms if isinstance(active.term, ClosedForm)]
        for term in closed:
            chunk.student(term.student_temperature)
        gradient_NV = chunk.give_up_logits().zero_() if wants_gradient else None
        sums = []
        for active in self.terms:
            if isinstance(active.term, ClosedForm):
                sums.append(_in_closed_form(active, active.term, chunk, gradient_NV))
                continue
            total, theirs_NV = by_autograd[active.name]
            sums.append(total)
            if gradient_NV is not None and theirs_NV is not None:
                gradient_NV.add_(theirs_NV)
        return sums, gradient_NV

    def _without_gradient(self) -> list[ActiveTerm]:
        return [active for active in self.terms if not isinstance(active.term, ClosedForm)]


def _in_closed_form(active: ActiveTerm, term: ClosedForm, chunk: Chunk, gradient_NV: Tensor | None) -> Tensor:
    chunk.live = active.live
    scale = term.scale(chunk.clock)
    weights_N = _token_weights(term, chunk)
    factor = active.weight * active.share * scale / chunk.at(term.student_temperature)
    by_token = factor if weights_N is None else factor * weights_N[:, None]
    values_N = term.values_and_gradient(chunk, gradient_NV, by_token)
    return scale * _sum(values_N, weights_N)


def _by_autograd(active: ActiveTerm, chunk: Chunk, logits_NV: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The term's sum over a chunk, and the gradient of its weighted sum with respect to the logits."""
    term = active.term
    assert isinstance(term, TokenTerm)
    chunk.live = active.live
    weights_N = _token_weights(term, chunk)
    scale = term.scale(chunk.clock)
    if not wants_gradient:
        return scale * _sum(term.values(chunk), weights_N), None
    with torch.enable_grad():
        leaf_NV = logits_NV.detach().requires_grad_()
        total = scale * _sum(term.values(chunk.with_logits(leaf_NV)), weights_N)
        if not total.requires_grad:  # the term does not look at the student here
            return total, None
        (gradient_NV,) = torch.autograd.grad(active.weight * active.share * total, leaf_NV, allow_unused=True)
    return total.detach(), gradient_NV


def _token_weights(term: TokenTerm, chunk: Chunk) -> Tensor | None:
    """What each token's value counts: the term's own weights, and 0 in utterances that it leaves out."""
    with torch.no_grad():
        weights_N = term.token_weights(chunk)
        weights_N = None if weights_N is None else weights_N.to(chunk.dtype)
        mask_N = chunk.batch.mask_N(term.contexts)
        if mask_N is None:
            return weights_N
        mask_N = mask_N[chunk.tokens].to(chunk.dtype)
        return mask_N if weights_N is None else mask_N * weights_N


def _sum(values_N: Tensor, weights_N: Tensor | None) -> Tensor:
    return (values_N if weights_N is None else values_N * weights_N).sum(dtype=torch.float64)


class _ChunkedTerms(torch.autograd.Function):
    """Loss and term sums; the gradients are made in `forward` and only scaled in `backward`."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, work: _Work) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_weight = (work.wants_gradients and wanted for wanted in ctx.needs_input_grad[:2])
        weight_compute_VD = work.student.weight_VD
        compute_dtype = weight_compute_VD.dtype
        wide = torch.float64 if compute_dtype == torch.float64 else torch.float32
        term_sums_K = torch.zeros(len(work.terms), dtype=torch.float64, device=hidden_ND.device)
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if wants_weight else None
        for tokens in work.chunks():
            chunk_ND = hidden_ND[tokens].to(compute_dtype)
            logits_NV = (chunk_ND @ weight_compute_VD.T).to(wide)
            sums, gradient_NV = work.evaluate(logits_NV, tokens, wants_hidden or wants_weight)
            if sums:
                term_sums_K += torch.stack(sums)
            if gradient_NV is not None:
                chunk_grad_ND = None if grad_hidden_ND is None else grad_hidden_ND[tokens]
                _add_gradients(gradient_NV, chunk_ND, weight_compute_VD, chunk_grad_ND, grad_weight_VD)
            del logits_NV, gradient_NV  # else they would still take memory while the next chunk's are made
        ctx.gradients = (grad_hidden_ND, grad_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        ctx.mark_non_differentiable(term_sums_K)
        weights_K = term_sums_K.new_tensor([active.weight * active.share for active in work.terms])
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
