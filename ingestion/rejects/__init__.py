"""Rejected messages after the fact: reading them, and landing what a newer decoder takes, once.

`offsets` is arithmetic of runs of offsets, `reading` finds and counts the rejects
that count, `judging` says whether a source has too many, `examples` what may be shown
of them, `replay` lands them. How a message becomes a reject is in
`ingestion.collector`; deleting rejects is not here.
"""
