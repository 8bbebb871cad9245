"""Generated messages, good and bad, and the comparison of bulk decoding with the strict reference.

`tokens` are the values worth trying, `mutation` makes messages of them from a seed,
`strategies` the same for hypothesis, `comparison` holds decoder and reference against
each other; `python -m verification.fuzz` runs a million. Tests use the same modules.
"""
