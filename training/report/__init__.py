"""Reports of runs: HTML pages, figures and tables."""

from training.report.cases import ReportCase, choose_cases
from training.report.folders import report_folders
from training.report.single import report_run, write_report

__all__ = ["ReportCase", "choose_cases", "report_folders", "report_run", "write_report"]
