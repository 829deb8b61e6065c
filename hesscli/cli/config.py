"""``hesscli config``."""

from __future__ import annotations

from hesscli.cli.command import command
from hesscli.cli.options import ProblemOptions, problem_options


@command(
    "hesscli config > mine.yaml",
    "hesscli config --config mine.yaml --activation gelu --set data.offset=100",
)
@problem_options()
def config(problem: ProblemOptions) -> int:
    """Print the effective configuration as YAML.

    It is what the other commands would use with the same options, every key spelled out, and
    can be given back with --config.
    """
    effective = problem.config_of_one("a configuration contains one")

    from hesscli.config.load import to_yaml
    from hesscli.report.output import write_text

    write_text(to_yaml(effective))
    return 0
