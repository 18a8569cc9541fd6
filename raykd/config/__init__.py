"""The typed config tree, and how it is read from YAML and `key=value`."""

from raykd.config.load import dump_yaml, load_config, load_mlm_config
from raykd.config.root import Config, MlmRunConfig, RunConfig

__all__ = ["Config", "MlmRunConfig", "RunConfig", "dump_yaml", "load_config", "load_mlm_config"]
