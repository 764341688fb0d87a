"""The report: what a run kept, dropped and lost, and why, as one page that needs no server and no network."""

from rushes.pipelines.report.page import write

__all__ = ["write"]
