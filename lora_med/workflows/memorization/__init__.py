"""The memorization audit: a twin run with canaries, its scores, and the report.

Other modules use `audit_memorization` and `AuditOptions`.
"""
