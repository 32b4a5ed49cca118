"""The evaluation report: HTML, Markdown and JSON, its charts, and two reports compared.

Other rooms use `write_report` and `compare_reports`.
"""
