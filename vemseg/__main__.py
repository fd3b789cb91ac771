"""``python -m vemseg``."""

from vemseg.cli import main

if __name__ == "__main__":
    main()
