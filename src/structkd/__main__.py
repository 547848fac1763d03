"""``python -m structkd``, for launchers such as ``torchrun -m structkd``: the command ``structkd``."""

from structkd.commands.main import main

if __name__ == "__main__":
    main()
