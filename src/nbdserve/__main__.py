"""`python -m nbdserve` is the nbdserve command."""

from nbdserve.cli import main

if __name__ == "__main__":
    main()
