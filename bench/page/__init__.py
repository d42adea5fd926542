"""The benchmark page: peers in environments of their own, measured alternately in one run."""
