"""`python -m alserve` is the command `alserve`."""

from alserve.cli import main

if __name__ == "__main__":
    main()
