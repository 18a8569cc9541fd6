"""Synthetic speech made on this machine: grammars of our own (`grammar`, `languages`) spoken by eSpeak NG (`speech`)."""

from raykd.data.demo.corpus import demo_corpus_dir, ensure_demo_corpus, write_demo_corpus

__all__ = ["demo_corpus_dir", "ensure_demo_corpus", "write_demo_corpus"]
