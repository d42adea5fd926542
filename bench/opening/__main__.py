"""`python -m bench.opening [ROUNDS CALLS]`."""

import sys

from bench.opening import opening

if __name__ == "__main__":
    opening(*map(int, sys.argv[1:]))
