"""What a person asks for when rows must not be used: which landed rows that is, and whether it can be entered.

The ledger itself, and which rows it covers, is `lake.quarantine`.
"""
