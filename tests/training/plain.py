"""A training loop by hand, on plain PyTorch and transformers in float64: what raykd's step is compared with.

It shares no code with raykd but the batches and the masked language model's network.

B utterances, U label positions, N valid tokens, V vocabulary, M mel channels, F frames.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

Losses = dict[str, tuple[float, Tensor]]
"""Of each term: weight, and mean over its tokens."""


@dataclass
class Plain:
    """Student, teacher and optimiser."""

    student: Any
    teacher: Any
    losses: Callable[["Plain", Any], Losses]
    lr: Callable[[int], float]
    clip: float
    weight_decay: float
    mlm: Any = None
    kept: Any = None
    """Of each of the student's tokens, its id in the vocabulary of those that teach; None: the same."""
    ema: Any = None
    """Decay; `copy` is then the average."""
    change: Callable[["Plain", Any], Any] | None = None
    """What is done to a batch first."""
    norms: list[float] = field(default_factory=list)
    records: list[dict[str, float]] = field(default_factory=list)

    def train(self, batches: list[Any]) -> dict[str, Tensor]:
        """One update for each whole global batch; the student's parameters by name."""
        teaching = [] if self.teacher is None or isinstance(self.teacher, Kept) else list(self.teacher.parameters())
        parameters = [p for p in [*self.student.parameters(), *teaching] if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-6)
        self.copy = copy.deepcopy(self.student).eval()
        for step, batch in enumerate(batches):
            self.step = step
            if self.change:
                batch = self.change(self, batch)
            losses = self.losses(self, batch)
            loss = torch.stack([weight * value for weight, value in losses.values()]).sum()
            adam.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip or float("inf"))
            for group in adam.param_groups:
                group["lr"] = self.lr(step)
            adam.step()
            if self.ema is not None:
                with torch.no_grad():
                    for mine, theirs in zip(self.copy.parameters(), self.student.parameters(), strict=True):
                        mine.copy_(self.ema * mine + (1 - self.ema) * theirs)
            self.norms.append(float(norm))
            self.records.append(
                {"loss": float(loss.detach()), **{name: float(value.detach()) for name, (_, value) in losses.items()}}
            )
        return {name: p.detach() for name, p in self.student.named_parameters() if p.requires_grad}


def load(folder: str, frozen_encoder: bool = True) -> Any:
    """A Whisper in float64."""
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder).double().eval()
    model.model.encoder.requires_grad_(not frozen_encoder)
    model.model.encoder.embed_positions.requires_grad_(False)
    return model


def logits(model: Any, batch: Any, mel_BMF: Tensor | None = None) -> Tensor:
    """logits_NV at the valid label positions."""
    mel_BMF = batch.mel_BMF if mel_BMF is None else mel_BMF
    out_BUV = model(input_features=mel_BMF.double(), decoder_input_ids=batch.decoder_input_BU).logits
    return out_BUV[batch.labels_BU != -100]


def labels(batch: Any) -> Tensor:
    """labels_N."""
    return batch.labels_BU[batch.labels_BU != -100]


def kl(student_NV: Tensor, target_NV: Tensor, student_t: float, target_t: float) -> Tensor:
    """KL(target || student) summed over the vocabulary, a mean over tokens, times the student's temperature squared."""
    log_p_NV, q_NV = (student_NV / student_t).log_softmax(-1), (target_NV / target_t).softmax(-1)
    return student_t**2 * functional.kl_div(log_p_NV, q_NV, reduction="sum") / len(student_NV)


class Kept:
    """A teacher with the whole vocabulary, asked in ids of a student that has some of its tokens."""

    def __init__(self, model: Any, kept: Sequence[int]) -> None:
        self.model, self.kept = model, torch.tensor(kept)

    def __call__(self, input_features: Tensor, decoder_input_ids: Tensor) -> Any:
        said = self.model(input_features=input_features, decoder_input_ids=self.kept[decoder_input_ids])
        return SimpleNamespace(logits=said.logits[..., self.kept])


def kd(plain: Plain, batch: Any) -> Losses:
    """Distil-Whisper."""
    student_NV, label_N = logits(plain.student, batch), labels(batch)
    with torch.no_grad():
        teacher_NV = logits(plain.teacher, batch)
    return {"ce": (0.8, functional.cross_entropy(student_NV, label_N)), "kl": (1.0, kl(student_NV, teacher_NV, 2.0, 2.0))}


def mlm_kd(plain: Plain, batch: Any) -> Losses:
    """The published code's weights: CE, and a KL that is a mean over tokens and vocabulary, times 4."""
    student_NV, label_N = logits(plain.student, batch), labels(batch)
    guesses = []
    for inputs_U, label_U in zip(batch.decoder_input_BU, batch.labels_BU, strict=True):
        text_T = torch.cat((inputs_U[:1], label_U[label_U != -100]))
        text_T = text_T if plain.kept is None else plain.kept[text_T]
        for position in range(1, len(text_T)):
            masked_T = text_T.clone()
            masked_T[position] = plain.mlm.mask_id
            with torch.no_grad():
                state_D = plain.mlm(masked_T[None], torch.tensor([len(text_T)]))[0, position]
            said_V = plain.mlm.embedding.weight @ state_D
            guesses.append(said_V if plain.kept is None else said_V[plain.kept])
    lambda_lm, tau, V = 0.3, 2.0, 51_865  # the published code's vocabulary, whatever a student keeps
    weight_kl = (1 - lambda_lm) / V
    total = lambda_lm + weight_kl * tau**2
    ce = functional.cross_entropy(student_NV, label_N)
    return {"ce": (lambda_lm / total, ce), "kl": (weight_kl / total, kl(student_NV, torch.stack(guesses).detach(), tau, 1.0))}


def with_ema(plain: Plain, batch: Any) -> Losses:
    """CE and half of KL from the average of the student's weights."""
    student_NV, label_N = logits(plain.student, batch), labels(batch)
    with torch.no_grad():
        self_NV = logits(plain.copy, batch)
    return {"ce": (1.0, functional.cross_entropy(student_NV, label_N)), "kl": (0.5, kl(student_NV, self_NV, 1.0, 1.0))}


def dr_kd(plain: Plain, batch: Any) -> Losses:
    """The teacher's logits with guess and label swapped where they differ."""
    student_NV, label_N = logits(plain.student, batch), labels(batch)
    with torch.no_grad():
        teacher_NV = logits(plain.teacher, batch)
    for token, label in enumerate(label_N.tolist()):
        guess = int(teacher_NV[token].argmax())
        if guess != label:
            teacher_NV[token, [guess, label]] = teacher_NV[token, [label, guess]]
    ce = functional.cross_entropy(student_NV, label_N)
    return {"ce": (0.2, ce), "kl": (0.8, kl(student_NV, teacher_NV, 3.0, 3.0))}


def akd(plain: Plain, batch: Any) -> Losses:
    """CE with half label, half teacher, on speech moved by the sign of the loss's gradient."""

    def mixed(mel_BMF: Tensor) -> tuple[Tensor, Tensor]:
        student_NV, label_N = logits(plain.student, batch, mel_BMF), labels(batch)
        return functional.cross_entropy(student_NV, label_N), kl(student_NV, teacher_NV, 1.0, 2.0)

    with torch.no_grad():
        teacher_NV = logits(plain.teacher, batch)
    mel_BMF = batch.mel_BMF.double().requires_grad_()
    ce, divergence = mixed(mel_BMF)
    (gradient_BMF,) = torch.autograd.grad(0.5 * ce + 0.5 * divergence, mel_BMF)
    ce, divergence = mixed(mel_BMF.detach() + 0.05 * gradient_BMF.sign())
    return {"ce": (0.5, ce), "kl": (0.5, divergence)}


def askd(plain: Plain, batch: Any) -> Losses:
    """A linear decay to 0 at 3 of 5 steps, an average that rises meanwhile, and trust by sentence with kappa 2."""
    student_NV, label_N = logits(plain.student, batch), labels(batch)
    u = min(1.0, plain.step / 5 / 0.6)
    losses = {"ce": (1.0, functional.cross_entropy(student_NV, label_N))}
    if u < 1:
        with torch.no_grad():
            teacher_NV = logits(plain.teacher, batch)
        lead_NV = teacher_NV.log_softmax(-1) - student_NV.detach().log_softmax(-1)
        lead_N = lead_NV.gather(1, label_N[:, None])[:, 0]
        sentence_N = torch.repeat_interleave((batch.labels_BU != -100).sum(1))
        trust_N = torch.stack([torch.sigmoid(2 * lead_N[sentence_N == one].mean()) for one in sentence_N])
        values = [kl(student_NV[token : token + 1], teacher_NV[token : token + 1], 2.0, 2.0) for token in range(len(label_N))]
        losses["kl_teacher"] = (1 - u, (trust_N * torch.stack(values)).mean())
        losses["teacher_lead"] = (0.0, lead_N.mean())
    if u > 0:
        with torch.no_grad():
            self_NV = logits(plain.copy, batch)
        losses["kl_self"] = (0.5 * u, kl(student_NV, self_NV, 2.0, 2.0))
    return losses


def with_adapters(model: Any, rank: int) -> Any:
    """A teacher that trains nothing but peft's adapters in its decoder, from a seed of 0."""
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        section = LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj", "v_proj"])
        inject_adapter_in_model(section, model.model.decoder)
    return model.double()


def okd(plain: Plain, batch: Any) -> Losses:
    """KL from the teacher for the student; for the teacher's adapters 0.7 CE and 0.3 KL(student || teacher)."""
    student_NV, teacher_NV, label_N = logits(plain.student, batch), logits(plain.teacher, batch), labels(batch)
    return {
        "kl": (1.0, kl(student_NV, teacher_NV.detach(), 1.0, 1.0)),
        "ce_teacher": (0.7, functional.cross_entropy(teacher_NV, label_N)),
        "kl_teacher": (0.3, kl(teacher_NV, student_NV.detach(), 1.0, 1.0)),
    }


def real_time(plain: Plain, batch: Any) -> Losses:
    """CE for both, and KL from the teacher as it is by now."""
    student_NV, teacher_NV, label_N = logits(plain.student, batch), logits(plain.teacher, batch), labels(batch)
    return {
        "ce": (1.0, functional.cross_entropy(student_NV, label_N)),
        "kl": (1.0, kl(student_NV, teacher_NV.detach(), 2.0, 2.0)),
        "ce_teacher": (1.0, functional.cross_entropy(teacher_NV, label_N)),
    }


class PlainExpert(nn.Module):
    """A feed-forward block of a language and its gate, under raykd's names."""

    def __init__(self, width: int, ffn: int, gate_width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.gate = nn.Module()
        self.gate.hidden, self.gate.out = nn.Linear(width, gate_width), nn.Linear(gate_width, 1, bias=False)


def load_experts(folder: str, language: str, gate_width: int) -> Any:
    """A Whisper in float64 whose layers mix an expert in for utterances of a language; nothing but experts and gates trains.

    `activation_fn` stands for the whole feed-forward block: what is before and after it does nothing.
    """
    model = load(folder).requires_grad_(False)
    model.languages, model.gates = [], []
    for stack in (model.model.encoder, model.model.decoder):
        for layer in stack.layers:
            expert = PlainExpert(model.config.d_model, layer.fc1.out_features, gate_width).double()
            shared = (layer.fc1, layer.fc2)
            layer.fc1, layer.fc2 = nn.Identity(), nn.Identity()
            layer.experts = nn.ModuleDict({language: expert})
            layer.activation_fn = Mixed(model, shared, expert, language)
    values = {name: value.double() for name, value in load_file(f"{folder}/model.safetensors").items() if ".experts." in name}
    assert not model.load_state_dict(values, strict=False).unexpected_keys
    return model


class Mixed(nn.Module):
    """A whole feed-forward block; what it uses is registered elsewhere."""

    def __init__(self, *held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x_BTD: Tensor) -> Tensor:
        model, shared, expert, language = self.held
        shared_BTD = shared[1](functional.gelu(shared[0](x_BTD)))
        own_BTD = expert.fc2(functional.gelu(expert.fc1(x_BTD)))
        gate_BT1 = expert.gate.out(torch.relu(expert.gate.hidden(x_BTD)))
        model.gates.append(gate_BT1[..., 0])
        share_BT1 = torch.sigmoid(gate_BT1)
        rows = [
            share_BT1[row] * own_BTD[row] + (1 - share_BT1[row]) * shared_BTD[row] if spoken == language else shared_BTD[row]
            for row, spoken in enumerate(model.languages)
        ]
        return torch.stack(rows)


def distilwhisper(plain: Plain, batch: Any) -> Losses:
    """(CE + |mean gate - 0.5|) / (2 * 1.41**2) + JS / 2, the mean over Polish utterances without their padding."""
    student, label_N = plain.student, labels(batch)
    student.languages, student.gates = batch.languages, []
    log_p_NV = logits(student, batch).log_softmax(-1)
    with torch.no_grad():
        log_q_NV = logits(plain.teacher, batch).log_softmax(-1)
    log_m_NV = ((log_p_NV.exp() + log_q_NV.exp()) / 2).log()
    both = [(log_NV.exp() * (log_NV - log_m_NV)).sum(-1) for log_NV in (log_p_NV, log_q_NV)]
    polish = [row for row, spoken in enumerate(batch.languages) if spoken == "pl"]
    layers = student.config.encoder_layers
    encoder: list[Tensor] = []
    decoder: list[Tensor] = []
    for number, gate_BT in enumerate(student.gates):
        for row in polish:
            positions = -(-batch.frames[row] // 2) if number < layers else 1 + int((batch.labels_BU[row] != -100).nonzero()[-1])
            (encoder if number < layers else decoder).append(gate_BT[row, :positions])
    losses = {"ce": (1 / (2 * 1.41**2), functional.cross_entropy(log_p_NV, label_N, label_smoothing=0.1))}
    before = getattr(plain, "gate_mean", None)
    if polish:
        mean = torch.cat([*encoder, *decoder]).sigmoid().mean()
        slope = 0.0 if before is None else float(torch.sign(torch.tensor(before - 0.5)))
        losses["gate_budget"] = (1 / (2 * 1.41**2), (mean - 0.5).abs().detach() + slope * (mean - mean.detach()))
        plain.gate_mean = float(mean.detach())  # type: ignore[attr-defined]
        for name, gates in (("expert_use_encoder", encoder), ("expert_use_decoder", decoder)):
            losses[name] = (0.0, (torch.cat(gates) >= 0).double().mean())
    losses["js"] = (0.5, (both[0] + both[1]).mean() / 2)
    return losses
