"""The review page: evidence from reports to read, and blind rating of base and adapter by clinicians.

The command line uses `web.run_review`, `blind.draw_plan`, `blind.study`, `blind.study_verdict` and
`blind.study_export`.
"""
