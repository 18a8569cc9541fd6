"""The typed config tree, and how it is read from YAML and `key=value`."""

from raykd.config.load import dump_yaml, load_config
from raykd.config.root import Config

__all__ = ["Config", "dump_yaml", "load_config"]
