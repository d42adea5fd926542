"""Converse: blocks in any order, each with what belongs to it."""

from encoders.bedrock_converse.answers import converse_answers

API = "bedrock-converse"

ANSWERS = converse_answers("recording")
