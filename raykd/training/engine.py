"""The DeepSpeed engine: optimiser step under any ZeRO stage, and its state in a form that no stage or worker count shows in.

Parameters and optimiser states are float32 in every stage; bfloat16 is a matter of autocast in the forward pass.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raykd.config.training import TrainConfig
from raykd.parts.deepspeed import prepare_deepspeed
from raykd.training.plan import effective_zero_stage

MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine:
    """A module under DeepSpeed. Every method but `forward` is collective: all workers call it."""

    def __init__(self, module: nn.Module, config: TrainConfig, accumulation: int, world: int) -> None:
        prepare_deepspeed()
        import deepspeed

        self.zero_stage = effective_zero_stage(config, world)
        self.updates = 0
        """Updates made; fewer than global batches where gradients were not finite."""
        self._norm = 0.0
        self._engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=_parameter_groups(module, config.weight_decay),
            config=_deepspeed_config(config, self.zero_stage, accumulation),
        )
        self._create_moments()

    @property
    def device(self) -> torch.device:
        """Where the module's parameters live."""
        return torch.device(self._engine.device)

    def forward(self, *arguments: Any) -> Any:
        """The module's forward pass, in training mode."""
        return self._engine(*arguments)

    def backward(self, loss: Tensor, factor: float) -> None:
        """Accumulate gradients of `factor` times `loss`; workers' gradients are averaged, micro-batches' are summed.

        DeepSpeed divides by the number of micro-batches where its module's own output is given (0.19.8, hooks of `forward`), so
        it is given a product, whatever the factor.
        """
        self._engine.backward(loss * factor, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> bool:
        """Count one micro-batch; on the last one of a global batch, update the parameters. Whether that was done.

        A gradient that is not finite changes nothing, in no stage: neither parameters nor moments.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()
            return False
        if self.zero_stage == 0:
            return self._step_without_zero()
        self._engine.step()  # looks at the norm itself and leaves the update out
        self._norm = float(self._engine.get_global_grad_norm())
        return self._count(not self._engine.optimizer.overflow)

    def _step_without_zero(self) -> bool:
        """Without ZeRO, DeepSpeed clips but neither tells the norm nor looks at it."""
        gradients = [p.grad for p in self._optimizer_tensors() if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm(gradients))
        finite = math.isfinite(self._norm)
        if not finite:
            self._engine.set_gradient_accumulation_boundary(False)
        self._engine.step()
        if not finite:
            self._engine.set_gradient_accumulation_boundary(None)
            self._engine.zero_grad()
        return self._count(finite)

    def _count(self, updated: bool) -> bool:
        self.updates += updated
        return updated

    def gradient_of(self, parameter: nn.Parameter) -> Tensor | None:
        """A parameter's whole gradient of the global batch, before clipping; None: it got none.

        To be asked between the last `backward` of a global batch and `step`.
        """
        from deepspeed.utils import safe_get_full_grad

        return parameter.grad if self.zero_stage == 0 else safe_get_full_grad(parameter)

    def gradient_norm(self) -> float:
        """Global gradient norm before clipping of the last global batch; not finite where the update was left out."""
        return self._norm if self._norm >= 0 else math.nan  # DeepSpeed says -1

    def train(self) -> None:
        """Dropout on."""
        self._engine.train()

    def parameters_of(self, names: Mapping[str, nn.Parameter], keep: bool) -> dict[str, Tensor]:
        """Whole float32 values by name, on the CPU. `keep` is False on workers that only take part in gathering."""
        from deepspeed.utils import safe_get_full_fp32_param

        values = {}
        for name, parameter in names.items():
            value = safe_get_full_fp32_param(parameter) if self.zero_stage == 3 else parameter.data
            if keep:
                values[name] = value.detach().to("cpu", torch.float32, copy=True).reshape(_shape_of(parameter))
        return values

    def moments_of(self, names: Mapping[str, nn.Parameter], keep: bool) -> dict[str, Tensor]:
        """Adam's moments by `<name>.<moment>`, whole, on the CPU."""
        from deepspeed.utils import safe_get_full_optimizer_state

        values = {}
        for name, parameter in names.items():
            for moment in MOMENTS:
                if self.zero_stage == 0:
                    value = self._engine.optimizer.state[parameter][moment]
                else:
                    value = safe_get_full_optimizer_state(parameter, moment)
                if keep:
                    values[f"{name}.{moment}"] = (
                        value.detach().to("cpu", torch.float32, copy=True).reshape(_shape_of(parameter))
                    )
        return values

    def restore_moments(self, names: Mapping[str, nn.Parameter], moments: Mapping[str, Tensor], updates: int) -> None:
        """Set Adam's moments and step count, as `moments_of` gave them after so many updates."""
        from deepspeed.utils import safe_set_full_optimizer_state

        self.updates = updates
        inner = self._inner_optimizer()
        for state in inner.state.values():
            state["step"].fill_(float(updates))
        for name, parameter in names.items():
            for moment in MOMENTS:
                value = moments[f"{name}.{moment}"].to(self.device)
                if self.zero_stage == 0:
                    inner.state[parameter][moment].copy_(value)
                else:
                    safe_set_full_optimizer_state(parameter, value, moment)

    def _create_moments(self) -> None:
        """Give Adam its states before the first step.

        Adam would create them at the first step, one parameter group after the other; DeepSpeed's stages 1 and 2 look for
        all groups' states after the first group's step (0.19.8 `stage_1_and_2.py`) and never find the later ones.
        """
        inner = self._inner_optimizer()
        for tensor in self._optimizer_tensors():
            step = torch.zeros((), device=tensor.device)
            inner.state[tensor] = {"step": step, **{moment: torch.zeros_like(tensor) for moment in MOMENTS}}
        if self.zero_stage in (1, 2):
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _inner_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self._engine.optimizer
        return optimizer if self.zero_stage == 0 else optimizer.optimizer

    def _optimizer_tensors(self) -> list[Tensor]:
        """What Adam holds states for: the parameters, or each ZeRO stage's flat partitions of them."""
        optimizer = self._engine.optimizer
        if self.zero_stage == 0:
            return [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.zero_stage == 3:
            return list(optimizer.fp32_partitioned_groups_flat)
        return list(optimizer.single_partition_of_fp32_groups)


def _deepspeed_config(config: TrainConfig, zero_stage: int, accumulation: int) -> dict[str, Any]:
    adam = {"lr": config.lr, "betas": list(config.betas), "eps": config.eps, "weight_decay": config.weight_decay}
    return {
        # The loss is already normalised over the global batch, so DeepSpeed's own batch size only has to be consistent.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.clip_norm,
        # PyTorch's own; fused, it is one pass through memory (8 ms instead of 65 for 8 M parameters on one core).
        "optimizer": {"type": "AdamW", "params": {**adam, "torch_adam": True, "fused": True}},
        "zero_optimization": {
            "stage": zero_stage,
            # Both would only hide communication behind compute on a GPU; on a CPU the extra streams do nothing.
            "overlap_comm": torch.cuda.is_available(),
        },
        "zero_force_ds_cpu_optimizer": False,
    }


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and norm weights (one-dimensional) are not decayed."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _shape_of(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


class WholeCopy:
    """A copy of a module that ZeRO-3 spreads over the workers, with whole weights as they are now. Made before the engine."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._copy = copy.deepcopy(module)
        self._updates = -1
        self.engine: Engine | None = None

    def __call__(self) -> Any:
        """The copy. Collective: every worker must call it."""
        from deepspeed.utils import safe_get_full_fp32_param

        assert self.engine is not None
        if self._updates != self.engine.updates:
            self._updates = self.engine.updates
            theirs = dict(self._module.named_parameters())
            with torch.no_grad():
                for name, parameter in self._copy.to(self.engine.device).named_parameters():
                    if parameter.requires_grad:
                        parameter.copy_(safe_get_full_fp32_param(theirs[name]).reshape(parameter.shape))
                for buffer, current in zip(self._copy.buffers(), self._module.buffers(), strict=True):
                    buffer.copy_(current)
        return self._copy
