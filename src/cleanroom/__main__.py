"""`python -m cleanroom` is the command."""

from cleanroom.cli.main import main

if __name__ == "__main__":
    main()
