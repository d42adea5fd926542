"""Converse: blocks in any order, each followed by its opaque data."""

from encoders.bedrock_converse.answers import converse_answers

API = "bedrock-converse"

ANSWERS = converse_answers("recording")
