"""Sources of real records and telemetry, each turned into extracts and replayed messages.

One module per source; landing them is the business of `lake`.
"""
