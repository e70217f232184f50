"""`python -m minicloud`: the same as the command."""

from minicloud.cli import main

if __name__ == "__main__":
    main()
