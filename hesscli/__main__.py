"""``python -m hesscli``."""

from hesscli.cli.main import main

main()
