"""The timing of one response."""

from __future__ import annotations

import msgspec

__all__ = ["Timing"]


class Timing(msgspec.Struct, gc=False):
    """The measurements below `StreamStats`, taken once per read.

    Attributes:
        headers_s: Seconds from the request to status and headers.
        first_token_at: When the first delta arrived, in the loop's time.
        last_at: When the last delta arrived, in the loop's time.
        reads: Number of reads.
        gaps: Number of gaps between reads with deltas.
        gap_sum: Their sum in seconds.
        gap_max: The longest of them in seconds.
    """

    headers_s: float | None = None
    first_token_at: float | None = None
    last_at: float | None = None
    reads: int = 0
    gaps: int = 0
    gap_sum: float = 0.0
    gap_max: float = 0.0

    def note(self, now: float) -> None:
        """Note that a read brought deltas."""
        if self.last_at is None:
            self.first_token_at = now
        else:
            gap = now - self.last_at
            self.gaps += 1
            self.gap_sum += gap
            self.gap_max = max(self.gap_max, gap)
        self.last_at = now

    def extend(self, later: Timing) -> None:
        """Add the measurements of a later attempt that continues the same stream."""
        if later.first_token_at is not None:
            self.note(later.first_token_at)
        self.gaps += later.gaps
        self.gap_sum += later.gap_sum
        self.gap_max = max(self.gap_max, later.gap_max)
        self.last_at = later.last_at or self.last_at
        self.reads += later.reads
