"""The step broken on purpose, one thing at a time, and the test that sees it.

    python -m tests.mutants [--only NAME ...]

Each mutant is one replacement in a copy of the sources; the tests of the step run on the copy until one fails. A mutant that
no test sees is a hole in the tests, and the exit status is 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/training/test_golden_step.py",
    "tests/methods",
    "tests/unit",
    "tests/regressions",
    "tests/training",
)


@dataclass(frozen=True)
class Mutant:
    """`old`, found once in `file`, becomes `new`."""

    name: str
    file: str
    old: str
    new: str


LOOP, ENGINE, STEP = "raykd/training/loop.py", "raykd/training/engine.py", "raykd/training/step.py"
OBJECTIVE, TERM = "raykd/training/objective.py", "raykd/parts/terms/term.py"
MUTANTS = (
    Mutant("mean over the worker's own tokens", LOOP, "            dist.all_reduce(total)", "            pass"),
    Mutant("workers' number left out of the mean", LOOP, "self.world / most", "1.0 / most"),
    Mutant("sum instead of mean", LOOP, "share=most / count if count else 0.0", "share=most"),
    Mutant(
        "temperature squared left out", TERM, "clock.at(self.student_temperature) ** 2", "clock.at(self.student_temperature)"
    ),
    Mutant("temperature's part of the gradient left out", OBJECTIVE, "scale / chunk.at(term.student_temperature)", "scale"),
    Mutant(
        "KL turned round",
        "raykd/parts/terms/kl.py",
        "student: LogProbs, target: LogProbs, into_NV",
        "target: LogProbs, student: LogProbs, into_NV",
    ),
    Mutant(
        "labels not shifted",
        "raykd/data/batches.py",
        "utterance.tokens[utterance.n_prompt + 1 :]",
        "utterance.tokens[utterance.n_prompt : -1]",
    ),
    Mutant(
        "teacher reads the labels instead of the decoder input",
        "raykd/parts/targets/whisper.py",
        "input_ids=batch.decoder_input_BU,",
        "input_ids=batch.labels_BU.clamp(min=0),",
    ),
    Mutant(
        "targets hear the perturbed mel",
        "raykd/parts/encoder.py",
        "other = for_targets and batch.teacher_mel_BMF is not None",
        "other = False",
    ),
    Mutant("no clipping", ENGINE, '"gradient_clipping": config.clip_norm', '"gradient_clipping": 0.0'),
    Mutant(
        "a term dropped on the last micro-batch",
        LOOP,
        "said = [k for k, active in enumerate(terms) if not active.term.silent(batch)]",
        "said = [0] if number and number == len(micro) - 1 else list(range(len(terms)))",
    ),
    Mutant(
        "learning rate one step late",
        LOOP,
        "learning_rate(self.config, batches.step, plan.steps)",
        "learning_rate(self.config, max(0, batches.step - 1), plan.steps)",
    ),
    Mutant(
        "weight decay on biases and norms",
        ENGINE,
        'p.dim() <= 1], "weight_decay": 0.0}',
        'p.dim() <= 1], "weight_decay": weight_decay}',
    ),
    Mutant(
        "only the last micro-batch's gradient",
        ENGINE,
        "self._engine.backward(loss * factor, scale_wrt_gas=False)",
        "self._engine.backward(loss * factor, scale_wrt_gas=True)",
    ),
    Mutant(
        "the output head's gradient of the first chunk only",
        OBJECTIVE,
        "grad_weight_VD.addmm_(narrow_NV.T, hidden_ND)",
        "grad_weight_VD.copy_(narrow_NV.T @ hidden_ND)",
    ),
    Mutant(
        "label smoothing of 1 %",
        "raykd/parts/terms/ce.py",
        "label_smoothing: float = Field(0.0",
        "label_smoothing: float = Field(0.01",
    ),
    Mutant(
        "teacher in training mode",
        "raykd/parts/targets/whisper.py",
        ".requires_grad_(False).eval()",
        ".requires_grad_(False).train()",
    ),
    Mutant(
        "padding counts",
        "raykd/data/batches.py",
        "labels_BU = np.full((len(utterances), longest), IGNORED_LABEL, np.int64)",
        "labels_BU = np.full((len(utterances), longest), pad_id, np.int64)",
    ),
    Mutant(
        "the average follows before the update",
        LOOP,
        "            self.engine.backward(loss, self.world / most)",
        "            self.method.after_update(clock, {}) if number == len(micro) - 1 else None\n"
        "            self.engine.backward(loss, self.world / most)",
    ),
    Mutant(
        "the average's decay turned round",
        "raykd/parts/updates/self_teacher.py",
        "self.follow(1 - clock.at(self._decay))",
        "self.follow(clock.at(self._decay))",
    ),
    Mutant("rectified with the guess kept", "raykd/parts/recipes/dr_kd.py", ".scatter_(1, label_N1, of_guess_N1)", ""),
    Mutant("attack the wrong way", "raykd/parts/recipes/akd.py", "batch.mel_BMF + clock.at(", "batch.mel_BMF - clock.at("),
    Mutant(
        "masked language model's temperature left out",
        "raykd/parts/recipes/mlm_kd.py",
        "student_temperature=temperature, target_temperature=self.mlm_temperature",
        "student_temperature=1.0, target_temperature=1.0",
    ),
    Mutant(
        "the frozen encoder trains",
        "raykd/parts/students/student.py",
        "model.model.encoder.requires_grad_(not self.freeze_encoder)",
        "model.model.encoder.requires_grad_(True)",
    ),
    Mutant(
        "autocast around the engine",
        STEP,
        "enabled=self.autocast is not None):\n            hidden_ND, auxiliary = self.learner(batch",
        "enabled=False):\n            hidden_ND, auxiliary = self.learner(batch",
    ),
    Mutant("every worker draws the same dropout", LOOP, "micro, self.rank, purpose", "micro, purpose"),
    Mutant(
        "dropout hangs on where training was resumed",
        LOOP,
        "self.seed, clock.step, micro, self.rank",
        "self.seed, micro, self.rank",
    ),
    Mutant("moments not restored", ENGINE, "inner.state[parameter][moment].copy_(value)", "pass"),
    Mutant("Adam's step count not restored", ENGINE, 'state["step"].fill_(float(updates))', "pass"),
    Mutant("a gradient that is not finite is taken", ENGINE, "finite = math.isfinite(self._norm)", "finite = True"),
    Mutant(
        "a part's state not restored", "raykd/training/method.py", "                live.restore(own)", "                pass"
    ),
    Mutant(
        "a chunk's tokens' weights ignored",
        OBJECTIVE,
        "return mask_N if weights_N is None else mask_N * weights_N",
        "return mask_N",
    ),
)


def tracked() -> list[str]:
    """Every file git knows or would add: what a clone would hold with what is being worked on."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def seen_by(mutant: Mutant) -> str | None:
    """The first test that fails on a copy with the mutant in it."""
    with tempfile.TemporaryDirectory(prefix="raykd-mutant-") as folder:
        for name in tracked():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, Path(folder) / name)
        file = Path(folder) / mutant.file
        text = file.read_text("utf-8")
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: {mutant.old!r} is {text.count(mutant.old)} times in {mutant.file}; mend the list")
        file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
        environment = {**os.environ, "PYTHONPATH": folder}
        for tests in TESTS:
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            if done.returncode:
                return found[1] if found else f"{tests} (exit status {done.returncode})"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="mutants whose name contains one of these")
    wanted = parser.parse_args().only
    unseen = 0
    print("| broken | seen by |\n|---|---|", flush=True)
    for mutant in MUTANTS:
        if not wanted or any(part in mutant.name for part in wanted):
            test = seen_by(mutant)
            unseen += test is None
            print(f"| {mutant.name} | {test or '**nothing**'} |", flush=True)
    sys.exit(unseen > 0)


if __name__ == "__main__":
    main()
