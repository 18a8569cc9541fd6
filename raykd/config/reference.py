"""`python -m raykd.config.reference [FILE]` writes configs/README.md: every key of the config, from its docstrings."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from raykd.config.base import Section
from raykd.config.described import ROOTS, SCHEDULE, Key, Kind, Place, own_places
from raykd.data.columns import AUDIO_COLUMNS, ID_COLUMNS, LANGUAGE_COLUMNS, SPLIT_COLUMNS, TEXT_COLUMNS

PAGE = Path("configs/README.md")
_INTRODUCTION = """# Configs

<!-- Written by `python -m raykd.config.reference` from the docstrings of raykd/config and raykd/parts. Do not edit it here. -->

A run is one YAML file. Any key can be changed on the command line:

```bash
python -m raykd.distill --config configs/quickstart.yaml train.steps=300 'student.decoder_layers=[0, 2]' name=two-layers
raykd config train.lr
```

`raykd config KEY` prints what is said here of a key. YAML is read as version 1.2: `no` is Norwegian and `1e-4` a number.
A mistake is one line that names the key; all mistakes are told at once, before Ray starts.
Paths are relative to the current folder; those of other raykd configs and of files with parts also to the config.

**Below**, `required` has no default, and `null` is what leaving the key out means where the text says so.
Keys with a star (\\*) may have another value when a run is resumed; the others decide what is trained and must stay.
Where one of several kinds may stand, a word is short for a section with nothing but the kind: `context: gold`.
"""
_COLUMNS = {
    "audio": AUDIO_COLUMNS,
    "transcript": TEXT_COLUMNS,
    "language": LANGUAGE_COLUMNS,
    "id": ID_COLUMNS,
    "split": SPLIT_COLUMNS,
}


def page(folder: Path = PAGE.parent) -> str:
    """The whole reference; `folder` has the configs that come with raykd."""
    distillation, mlm, comparison, sweep = (own_places(root) for root in ROOTS.values())
    known = {place.path for place in distillation}
    ours = [place for place in mlm if not place.path or place.path not in known]
    parts = [_INTRODUCTION, _shipped(folder)]
    parts += ["## Distillation: `python -m raykd.distill`\n", *(_place(place, distillation) for place in distillation)]
    parts += ["## Language model: `python -m raykd.train_mlm`\n", *(_place(place, mlm) for place in ours)]
    parts += [
        "## Comparison: `python -m raykd.compare`\n",
        *(_place(place, (*comparison, *distillation)) for place in comparison),
    ]
    parts += ["## Sweep: `python -m raykd.tune`\n", *(_place(place, sweep) for place in sweep)]
    return "\n".join(parts)


def _shipped(folder: Path) -> str:
    rows = [f"| [{file.name}]({file.name}) | {_first_sentence(file)} |" for file in sorted(folder.glob("*.yaml"))]
    return "\n".join(["## Configs that come with raykd\n", "| config | |", "|---|---|", *rows, ""])


def _first_sentence(config: Path) -> str:
    comment = re.match(r"(?:#.*\n)*", config.read_text("utf-8"))
    text = " ".join(line.removeprefix("#").strip() for line in comment[0].splitlines()) if comment else ""
    return _cell(re.split(r"(?<=[\w)]{2}[.:]) (?=[A-Z])", text)[0].rstrip(":."))


def _place(place: Place, others: Sequence[Place]) -> str:
    title = f"### `{place.path}`" if place.path else "### Top level"
    lines = [title, "", *_paragraphs(place.text)]
    lines += [f"In short: {_prose(place.short)}", ""] if place.short else []
    lines += ["All of it may differ when a run is resumed.", ""] if place.free else []
    if place.shared:
        lines += [f"Every {place.tag} has these keys, and those below it:", "", *_table(place.shared, others)]
    for kind in place.kinds:
        if kind.section.__module__.startswith("raykd."):
            lines += _kind(kind, place, others)
    if place.path == "data.source[]":
        lines += _columns()
    return "\n".join(lines)


def _kind(kind: Kind, place: Place, others: Sequence[Place]) -> list[str]:
    lines = []
    if place.tag:
        lines += [f"**`{place.tag}: {kind.name}`**", "", *_paragraphs(kind.text)]
        described = next((other for other in others if other.asked == (kind.section,)), None)
        if described:
            return [*lines, f"Its keys are those of [`{described.path}`](#{anchor(described.path)}).", ""]
    return lines + _table(kind.keys, others)


def _columns() -> list[str]:
    rows = [f"| {name} | {', '.join(f'`{column}`' for column in columns)} |" for name, columns in _COLUMNS.items()]
    text = "In manifests and tables the first of these columns that is filled is read:"
    return [text, "", "| for | columns |", "|---|---|", *rows, ""]


def _table(keys: Iterable[Key], others: Sequence[Place]) -> list[str]:
    rows = [f"| {_name(key)} | {_cell(_linked(key, others))} | {_default(key)} | {_cell(_prose(key.text))} |" for key in keys]
    return ["| key | holds | default | |", "|---|---|---|---|", *rows, ""] if rows else []


def _name(key: Key) -> str:
    return f"`{key.name}` \\*" if key.free else f"`{key.name}`"


def _default(key: Key) -> str:
    return key.default if key.default == "required" else f"`{_cell(key.default)}`"


def _linked(key: Key, others: Sequence[Place]) -> str:
    """What a key holds, with links to the sections that it may hold."""
    words = key.holds
    if "schedule" in words:
        words = words.replace("schedule", f"[schedule](#{SCHEDULE})")
    elif key.asked:
        path = _path_of(key.asked, others)
        words = re.sub(r"sections?", lambda found: f"[{found[0]}](#{anchor(path)})", words)
    return words


def _path_of(asked: tuple[type[Section], ...], others: Sequence[Place]) -> str:
    exact = [place.path for place in others if place.asked == asked]
    return exact[0] if exact else next(p.path for p in others if any(kind.section in asked for kind in p.kinds))


def anchor(title: str) -> str:
    """Where a heading is found in a page on GitHub."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _paragraphs(text: str) -> list[str]:
    return [line for paragraph in text.split("\n\n") if paragraph for line in (_prose(paragraph), "")]


def _prose(text: str) -> str:
    """Docstrings in Markdown: outside of code, stars and angle brackets stand for themselves."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([*<])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> None:
    """Write the page."""
    target = Path(arguments[0]) if arguments else PAGE
    target.write_text(page(target.parent), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
