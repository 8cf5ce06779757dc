"""``python -m comptoir`` is the command line."""

from comptoir.cli.main import main

if __name__ == "__main__":
    main()
