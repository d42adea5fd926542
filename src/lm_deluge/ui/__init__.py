"""Answers as user interfaces read them: in the frames of their protocols, and kept for clients that come back."""
