"""Text sources: whatever holds text, read as one stream of raw lines. Each kind lists its parts on the driver."""

from raykd.config.text import TextConfig, TextDemoSource, TextFilesSource, TextHuggingFaceSource, TextParquetSource, TextSource
from raykd.data.files import read_error
from raykd.data.sources.recognise import with_text_kinds
from raykd.data.text_sources.files import file_parts
from raykd.data.text_sources.huggingface import huggingface_parts
from raykd.data.text_sources.parquet import parquet_parts
from raykd.data.text_sources.part import TextPart


def text_parts(config: TextConfig, language: str) -> list[TextPart]:
    """The parts of all sources, in order. `language` is Whisper's code of the config's.

    Raises:
        UserError: a source cannot be used: not there, unreadable, or without the column it needs.
    """
    return [part for source in with_text_kinds(config).source for part in _parts(source, language)]


def _parts(source: TextSource, language: str) -> list[TextPart]:
    if isinstance(source, TextDemoSource):
        from raykd.data.text_sources.demo import demo_parts

        return demo_parts(source, language)
    try:
        if isinstance(source, TextFilesSource):
            return file_parts(source.path)
        if isinstance(source, TextHuggingFaceSource):
            return huggingface_parts(source)
        assert isinstance(source, TextParquetSource)
        return parquet_parts(source)
    except OSError as error:  # a bucket that does not answer, a file that went away
        raise read_error(source.path, error) from None
