"""Exactly once under faults: real workers, a real broker and an S3 server, with a fault proxy of ours between.

`python -m verification.chaos` runs scenarios: workers collect while messages are produced, the
proxy kills, freezes or cuts them off at one step of the landing protocol, and at
the end every produced record is looked for in the lake by offset and by content
(`verify`, which shares no code with the collector). The protocol itself is in
`lake.landing`.
"""
