"""What every layer agrees on: events, change records, their Arrow schemas, vendor decoders.

`columns` holds the schemas, `registry` the feeds, `telemetry` and `records` the validated models,
`decoders` the vendors' formats and `personal_data` what personal data looks like.
"""
