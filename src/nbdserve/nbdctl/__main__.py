"""`python -m nbdserve.nbdctl`: the same as the command `nbdctl`."""

from nbdserve.nbdctl.command import main

if __name__ == "__main__":
    main()
