"""Answers of language models as they are generated."""
