"""Documents of one text each: bytes decoded, mark-up turned into lines, JSON resources found, other formats refused.

The sources `plain_text`, `fhir` and `cda` use all of it; reading uses `unsupported_formats` for every input.
"""
