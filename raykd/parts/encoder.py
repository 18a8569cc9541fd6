"""A frozen encoder, run once for a batch whoever asks for its states.

Shapes: B utterances, M mel channels, F mel frames, S encoder positions, D width.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raykd.data.batches import Batch
from raykd.data.teacher_cache import kept_states
from raykd.models.routing import speaking
from raykd.models.state import same_parameters
from raykd.models.window import encoder_states
from raykd.parts.timing import part

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


class FrozenEncoder:
    """The encoder of a teacher, or of a student whose encoder does not train.

    It is no module: the engine does not see, shard or save it.
    """

    def __init__(self, encoder: nn.Module, settled: bool = False) -> None:
        """`settled`: it is on its device already."""
        self.module: Any = encoder.requires_grad_(False).eval()
        self.reads_cache = False
        """Whether its states were kept, so that it is not run for batches that bring them."""
        self._settled = settled
        self._place: tuple[torch.device, torch.dtype | None] | None = None
        self._compile_or_tell: Callable[[str], None] | None = None

    def __deepcopy__(self, memo: Any) -> "FrozenEncoder":
        """Copies of a student hear with the same encoder."""
        return self

    def settle(
        self, device: torch.device, dtype: torch.dtype | None = None, compile_or_tell: Callable[[str], None] | None = None
    ) -> None:
        """Where it is to be, the first time that this is said. It is brought there when it is first run.

        `compile_or_tell`: its layers are to be compiled, and who is told why when that cannot be done.
        """
        if self._settled:
            return
        self._place, self._settled = (device, dtype), True
        if compile_or_tell is not None and getattr(self.module, "routing", None) is None:  # experts are hooks on the layers
            # Layer by layer: one compilation serves them all.
            self._compile_or_tell = compile_or_tell
            for layer in self.module.layers:
                layer.compile()

    def is_copy_of(self, teacher: "WhisperForConditionalGeneration") -> bool:
        """Whether the teacher's encoder is the same, weight by weight in the teacher's type, so that one will do for both."""
        theirs: Any = teacher.model.encoder
        same_heads = theirs.config.encoder_attention_heads == self.module.config.encoder_attention_heads
        return same_heads and same_parameters(theirs, self.module)

    def states(self, batch: Batch, for_targets: bool = False) -> Tensor:
        """states_BSD in the encoder's type. A gradient flows to a mel that wants one (`parts.inputs`)."""
        other = for_targets and batch.teacher_mel_BMF is not None
        key = (id(self.module), other)
        if key not in batch.memo:
            mel_BMF = batch.teacher_mel_BMF if other else batch.mel_BMF
            assert mel_BMF is not None
            # What was kept is of the speech as the targets hear it.
            theirs = other or batch.teacher_mel_BMF is None
            kept = self.reads_cache and theirs and "states_BSD" in batch.kept and not mel_BMF.requires_grad
            batch.memo[key] = kept_states(batch.kept, self._dtype) if kept else self._run(mel_BMF, batch.languages)
        return batch.memo[key]

    @property
    def _dtype(self) -> torch.dtype:
        """Of its states, also while it is not yet where it is to be."""
        dtype = self._place[1] if self._place else None
        return dtype or self.module.conv1.weight.dtype

    def _run(self, mel_BMF: Tensor, languages: Sequence[str]) -> Tensor:
        if self._place:
            self.module.to(*self._place)
            self._place = None
        plain = torch.autocast(mel_BMF.device.type, enabled=False)
        mel_BMF = mel_BMF.to(self.module.conv1.weight.dtype)
        with part("encoder"), plain, torch.set_grad_enabled(mel_BMF.requires_grad), speaking(self.module, languages):
            if self._compile_or_tell is None:
                return encoder_states(self.module, mel_BMF)
            return self._compiled_states(mel_BMF, self._compile_or_tell)

    def _compiled_states(self, mel_BMF: Tensor, compile_or_tell: Callable[[str], None]) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # a second that only who compiles need wait for

        try:
            return encoder_states(self.module, mel_BMF)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            compile_or_tell(f"the frozen encoder is not compiled and runs as it is ({reason})")
            torch.compiler.set_stance("force_eager")
            self._compile_or_tell = None
            return encoder_states(self.module, mel_BMF)
