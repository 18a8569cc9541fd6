"""DeepSpeed's engine switches an outer autocast off. It asks for CUDA's, so that students trained in float32 on GPUs, whatever
`train.precision` said, and no test on a CPU could see it. Here CUDA's flag is set by hand.
"""

from dataclasses import dataclass, fields

import torch
from torch import nn

from raykd.training.student_job import StudentJob
from tests.jobs import MakeJob
from tests.training.workers import Group


@dataclass(frozen=True, kw_only=True)
class AsOnGpu(StudentJob):
    """A job whose worker has autocast on where DeepSpeed looks."""

    def load_model(self) -> nn.Module:
        torch.set_autocast_enabled("cuda", True)
        return super().load_model()


def test_the_students_products_are_taken_in_bfloat16(make_job: MakeJob) -> None:
    job = make_job(precision="bfloat16", steps=2, student={"freeze_encoder": False})
    group = Group(1)
    try:
        (records,) = group.run([AsOnGpu(**{field.name: getattr(job, field.name) for field in fields(job)})])
    finally:
        group.stop()
    assert [record["precision"] for record in records if record["kind"] == "train"] == ["bfloat16"] * 2
    (started,) = [record for record in records if record["kind"] == "started"]
    assert started["precision"] == "bfloat16"
