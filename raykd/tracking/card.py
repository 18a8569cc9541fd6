"""The model card of a student: `student/README.md`, with the metadata that the Hugging Face Hub reads."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from raykd import storage
from raykd.models.routing import EXPERTS
from raykd.parts.students.student import Student
from raykd.tracking.metrics import Metrics
from raykd.tracking.report import TEMPLATES, normalizer_text, objective_text, teacher_name
from raykd.tracking.run_folder import RunFolder

FRAMES_PER_POSITION_S = 0.02
"""Seconds of speech to an encoder position."""


def write_card(run: RunFolder) -> None:
    """Write `student/README.md` from the run's config and metrics and the student's own config."""
    config = yaml.safe_load(run.read_text("config.yaml"))
    metrics = Metrics.model_validate(run.read_json("metrics.json"))
    model = run.read_json("student/config.json")
    window_s = model["max_source_positions"] * FRAMES_PER_POSITION_S
    experts = (model.get(EXPERTS) or {}).get("languages", ())
    storage.write_text(storage.join(run.student_dir, "README.md"), render_card(run.name, config, metrics, window_s, experts))


def render_card(name: str, config: Mapping[str, Any], metrics: Metrics, window_s: float, experts: Sequence[str] = ()) -> str:
    """The card's text. `window_s`: longest piece of speech the student reads at once, in seconds; `experts`: languages that it
    has experts for.
    """
    config = _harmless(config)
    languages = _harmless(list(metrics.student.per_language))
    return TEMPLATES.get_template("card.md").render(
        name=name,
        front_matter=yaml.safe_dump(_front_matter(name, config, metrics), sort_keys=False, allow_unicode=True),
        languages=languages,
        teacher_name=teacher_name(config),
        metrics=metrics,
        rows=list(_rows(metrics)),
        splits=list(metrics.student.splits),
        invalid_words=metrics.student.invalid_word_share is not None,
        normalizer=normalizer_text(metrics.student.normalizer),
        objective=objective_text(config),
        sources=", ".join(_sources(config)),
        generate=f', generate_kwargs={{"language": "{languages[0]}"}}' if languages and languages != ["en"] else "",
        start=_start(_student(config)),
        versions=metrics.versions,
        synthetic=all(source["kind"] == "demo" for source in config["data"]["source"]),
        window_s=window_s,
        experts=experts,
    )


def _harmless(value: Any) -> Any:
    """Texts that mean nothing to HTML or to a table of Markdown: names of data and models come from anywhere."""
    if isinstance(value, str):
        return " ".join(value.replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;").replace("`", "'").split("\n"))
    if isinstance(value, Mapping):
        return {key: _harmless(item) for key, item in value.items()}
    return [_harmless(item) for item in value] if isinstance(value, list | tuple) else value


def _student(config: Mapping[str, Any]) -> Student:
    return TypeAdapter(Student).validate_python(config["student"])


def _front_matter(name: str, config: Mapping[str, Any], metrics: Metrics) -> dict[str, Any]:
    base = next((model for model in (_student(config).origin, teacher_name(config)) if is_hub_id(model)), None)
    matter: dict[str, Any] = {"language": list(metrics.student.per_language)}
    if base:
        matter["base_model"] = base
    if license_name := _license(base):
        matter["license"] = license_name
    datasets = [source["path"] for source in config["data"]["source"] if source["kind"] == "huggingface"]
    if hub_datasets := [path for path in datasets if is_hub_id(path)]:
        matter["datasets"] = hub_datasets
    matter |= {"library_name": "transformers", "pipeline_tag": "automatic-speech-recognition"}
    matter |= {"tags": ["whisper", "distillation", "raykd"], "metrics": ["wer", "cer"]}
    matter["model-index"] = [{"name": name, "results": list(_results(config, metrics))}]
    return matter


def _results(config: Mapping[str, Any], metrics: Metrics) -> Iterator[dict[str, Any]]:
    """One entry a split, rates in percent as the Hub shows them."""
    sources = ", ".join(_sources(config))
    for split, scores in metrics.student.splits.items():
        rates = [
            {"type": rate, "value": round(100 * getattr(scores, rate), 2), "name": f"{rate.upper()} (%)"}
            for rate in ("wer", "cer")
        ]
        task = {"type": "automatic-speech-recognition", "name": "Automatic Speech Recognition"}
        yield {"task": task, "dataset": {"name": sources, "type": sources, "split": split}, "metrics": rates}


def _rows(metrics: Metrics) -> Iterator[dict[str, Any]]:
    for split, student in metrics.student.splits.items():
        teacher = metrics.teacher.splits.get(split) if metrics.teacher else None
        for code, scores in student.per_language.items():
            yield {"split": split, "label": code, "student": scores, "teacher": teacher and teacher.per_language.get(code)}
        if len(student.per_language) > 1:
            yield {"split": split, "label": "all", "student": student, "teacher": teacher}


def _sources(config: Mapping[str, Any]) -> list[str]:
    """Names of the sources; of local ones only the last part, because a card is made to be shared."""
    names = []
    for source in config["data"]["source"]:
        if source["kind"] == "demo":
            names.append(f"synthetic speech ({', '.join(source['languages'])})")
        elif source["kind"] == "huggingface" and is_hub_id(source["path"]):
            names.append(source["path"] + (f" ({source['name']})" if source.get("name") else ""))
        else:
            names.append(Path(source["path"].rstrip("/")).name)
    return names


def _start(student: Student) -> str:
    """What the student starts from, and how it is smaller; of a local folder only the last part."""
    start = student.started_from()
    start = start if is_hub_id(start) or start != student.origin else Path(start).name
    if student.window != "whole":
        start += f"; hears a clip and {student.window.margin * FRAMES_PER_POSITION_S:g} s, or whole windows"
    return start if student.vocabulary == "whole" else f"{start}; vocabulary cut to what the training text needs"


def is_hub_id(name: str | None) -> bool:
    """Whether a model or dataset name is `owner/name` on the Hub, not a path on this machine."""
    if not name or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return False
    return not os.path.exists(name) and not name.endswith((".yaml", ".yml", ".jsonl", ".csv", ".parquet"))


def _license(base: str | None) -> str | None:
    """OpenAI's models: MIT for large-v3-turbo, Apache-2.0 for the rest. Other licences are not known here."""
    if base is None or not base.startswith("openai/whisper-"):
        return None
    return "mit" if base.endswith("turbo") else "apache-2.0"
