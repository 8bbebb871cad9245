"""What every layer agrees on: events, change records, their Arrow schemas, vendor decoders.

`columns` holds the schemas, `telemetry` and `records` the validated models and
`decoders` the vendors' formats. No I/O lives here.
"""
