"""One file a language: its words and its templates."""

from raykd.data.demo.languages import ca, cs, en, hu, pl, uk

GRAMMARS = {module.GRAMMAR.language: module.GRAMMAR for module in (ca, cs, en, hu, pl, uk)}
"""The grammars by Whisper's language code."""
