"""Consent that comes late, and erasure: from what has landed to entries of the redaction ledger, and to
nothing being left of what they cover.

`scope` says what a household's erasure covers, `late` finds opt-outs that came
after their events, `purge` deletes originals, `leftovers` proves that nothing is
left. The ledger itself is `lake.redactions`; the warehouse honours it in
`warehouse`.
"""
