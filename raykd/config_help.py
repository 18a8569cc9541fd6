"""`raykd config [KEY]`: what a key of the config is for, what it may hold and its default, from the config's own docstrings."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from raykd.cli import Parser
from raykd.config.described import ROOTS, Key, Kind, Place, own_places, places
from raykd.config.load import load_parts
from raykd.errors import UserError

_WIDTH = 110
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Entry:
    """Something that can be asked for: a section, one of its kinds, or a key."""

    path: str
    """`objective.kd.lambda_kl`: with the kind's name, as one may write it when asking."""
    place: Place
    kind: Kind | None = None
    key: Key | None = None

    @property
    def name(self) -> str:
        """The last step of the path."""
        return self.path.rpartition(".")[2]

    @property
    def in_a_config(self) -> str:
        """The path as a config has it: `objective.lambda_kl`."""
        place = _plain(self.place.path)
        return ".".join(filter(None, (place, self.key.name))) if self.key else place


def main(arguments: Sequence[str]) -> None:
    """Print the reference of a key, or the top level of both kinds of config.

    Raises:
        UserError: no key of that name.
    """
    parser = Parser(prog="raykd config", description=__doc__)
    parser.add_argument("key", nargs="?", help="such as train.lr, objective, objective.kd.lambda_kl or lambda_kl")
    key = parser.parse_args(list(arguments)).key
    load_parts({}, "")
    print(help_on(key) if key else overview())


def overview() -> str:
    """The top-level keys of every kind of config."""
    lines = []
    for command, root in ROOTS.items():
        top = places(root)[0]
        lines += [f"python -m {command}: {top.text}", ""]
        lines += [f"  {key.name:<14}{key.text.partition('. ')[0].rstrip('.')}" for key in top.kinds[0].keys]
        lines.append("")
    return "\n".join([*lines, "raykd config KEY tells more, such as: raykd config train.lr"])


def help_on(asked: str) -> str:
    """Everything that a path or a bare name stands for.

    Raises:
        UserError: it stands for nothing.
    """
    known = list(entries())
    wanted = _plain(asked)
    for matches in (_by_path, _by_end, _by_name, _by_short_form):
        found = [entry for entry in known if matches(entry, wanted)]
        if found:
            return "\n\n".join(dict.fromkeys(map(_shown, found)))
    names = dict.fromkeys(name for entry in known for name in (entry.path, entry.in_a_config, entry.name) if name)
    near = get_close_matches(wanted, names, n=_SUGGESTIONS)
    hint = f"did you mean {' or '.join(near)}?" if near else "raykd config lists the sections"
    raise UserError(f"{asked}: unknown key; {hint}")


def _by_path(entry: Entry, wanted: str) -> bool:
    return wanted == entry.path or (entry.key is not None and wanted == entry.in_a_config)


def _by_end(entry: Entry, wanted: str) -> bool:
    paths = (entry.path, entry.in_a_config) if entry.key else (entry.path,)
    return any(path.endswith(f".{wanted}") for path in paths)


def _by_name(entry: Entry, wanted: str) -> bool:
    """Below a section that there is, a key that may be written there in a short form: `data.spec_augment`."""
    top, _, rest = wanted.partition(".")
    return any(top in root.model_fields for root in ROOTS.values()) and entry.name == rest.rpartition(".")[2] != ""


def _by_short_form(entry: Entry, wanted: str) -> bool:
    """What tells the kinds of a section apart, or a short form of it: `student.kind`, `student.init`."""
    above, _, name = wanted.rpartition(".")
    if entry.kind or entry.key or entry.path != above:
        return False
    return name == entry.place.tag or bool(re.search(rf"`{re.escape(name)}\b", entry.place.short))


def _plain(path: str) -> str:
    """A path without the steps into lists and mappings: `objective.terms[0].weight` -> `objective.terms.weight`."""
    return re.sub(r"\[\w*\]|\.NAME\b", "", path)


def entries() -> Iterator[Entry]:
    """Everything that can be asked for."""
    for root in ROOTS.values():
        for place in own_places(root):
            path = _plain(place.path)
            if path:
                yield Entry(path, place)
            for key in place.shared:
                yield Entry(f"{path}.{key.name}", place, None, key)
            for kind in place.kinds:
                above = ".".join(filter(None, (path, kind.name)))
                if kind.name:
                    yield Entry(above, place, kind)
                for key in kind.keys:
                    yield Entry(".".join(filter(None, (above, key.name))), place, kind, key)


def _shown(entry: Entry) -> str:
    if entry.key:
        return _key(entry.key, f"{entry.in_a_config}{_where(entry)}")
    if entry.kind:
        return "\n".join([f"{_plain(entry.place.path)}{_where(entry)}", *_kind(entry.kind)])
    return _section(entry.place)


def _where(entry: Entry) -> str:
    if entry.kind and entry.kind.name:
        return f"  ({entry.place.tag}: {entry.kind.name})"
    return "" if entry.place.path else f"  (python -m {_command(entry.place)})"


def _command(place: Place) -> str:
    return next(command for command, root in ROOTS.items() if place.asked == (root,))


def _section(place: Place) -> str:
    lines = [_plain(place.path), *_wrapped(place.text, 2)]
    lines += _wrapped(f"In short: {place.short}", 2) if place.short else []
    lines += [line for key in place.shared for line in ("", *_key(key, key.name, 2).splitlines())]
    for kind in place.kinds:
        lines += ["", f"  {place.tag}: {kind.name}", *_kind(kind, 4)] if kind.name else _kind(kind, 2)
    return "\n".join(lines)


def _kind(kind: Kind, indent: int = 2) -> list[str]:
    lines = _wrapped(kind.text, indent) if kind.name else []
    return lines + [line for key in kind.keys for line in ("", *_key(key, key.name, indent).splitlines())]


def _key(key: Key, title: str, indent: int = 0) -> str:
    default = "required" if key.default == "required" else f"default {key.default}"
    lines = [f"{' ' * indent}{title}: {key.holds.replace('`', '')}; {default}", *_wrapped(key.text, indent + 4)]
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> list[str]:
    margin = " " * indent
    lines = [line for paragraph in text.split("\n") for line in (textwrap.wrap(paragraph, _WIDTH - indent) or [""])]
    return [f"{margin}{line}".rstrip() for line in lines if text]


if __name__ == "__main__":
    from raykd.cli import run_command

    run_command(main)
