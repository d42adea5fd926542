"""Conversations as messages in the formats of the providers' own libraries."""
