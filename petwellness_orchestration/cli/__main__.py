"""`python -m petwellness_orchestration.cli` is the `petwellness` command."""

from petwellness_orchestration.cli import main

main()
