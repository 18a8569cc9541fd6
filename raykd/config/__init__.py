"""The typed config tree, and how it is read from YAML and `key=value`.

`root` and `load` know every part of a method and stand above the other rooms; all else here stands below them. So that the
lower files can be imported without the upper ones, the names of this package are looked up when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raykd.config.load import dump_yaml, load_config, load_mlm_config, load_written_config
    from raykd.config.root import Config, MlmRunConfig, RunConfig

__all__ = ["Config", "MlmRunConfig", "RunConfig", "dump_yaml", "load_config", "load_mlm_config", "load_written_config"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raykd.config import load, root

    return getattr(root if name.endswith("Config") else load, name)
