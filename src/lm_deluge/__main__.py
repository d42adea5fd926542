"""`python -m lm_deluge` runs the command `deluge`."""

from lm_deluge.cli.main import main

if __name__ == "__main__":
    main()
