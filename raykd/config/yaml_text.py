"""YAML as the 1.2 core schema reads it: `no` is Norwegian, 1e-4 is a number, a key that comes twice is a mistake.

PyYAML follows YAML 1.1, which reads `no`, `on` and `y` as booleans, 1e-4 as text, 010 as eight and 1:30 as ninety.
"""

import math
import re
from typing import Any

import yaml

from raykd.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"
_MOST_VALUES = 1_000_000
"""In a document, with what its aliases stand for: ten aliases of ten, a few times over, are more than fit in memory."""
_SCALARS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    _MERGE: (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema and without double keys."""

    def construct_document(self, node: yaml.Node) -> Any:
        if _values(node, {}) > _MOST_VALUES:
            problem = f"aliases within aliases stand for over {_MOST_VALUES} values"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    problem = f"the key `{key.value}` comes twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        try:
            return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
        except ValueError:  # Python's own limit of digits
            problem = f"a whole number of {len(text)} digits"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from None


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """Values that a node stands for, each alias counted again; without end where one is a part of itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = (child for pair in node.value for child in pair)
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, so that every YAML library reads back the same."""


_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first_characters) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first_characters)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first_characters)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def from_yaml(text: str, origin: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        UserError: not YAML; one line with `origin`, the line in it and what is wrong.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{origin}: {line}not valid YAML ({' '.join(str(error.problem or error.context).split())})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{origin}: not valid YAML (lists or sections too deep within each other)") from None
    except (ValueError, TypeError, OverflowError) as error:  # whatever a scalar or key may be that nobody foresaw
        raise UserError(f"{origin}: not valid YAML ({' '.join(str(error).split())[:200]})") from None


def to_yaml(value: Any) -> str:
    """YAML that `from_yaml` reads back to the same value, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
