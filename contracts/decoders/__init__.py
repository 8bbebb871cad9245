"""Decoders from a device's own format to the telemetry contract, one module per vendor.

A decoder takes one message and gives every contract field, checked, or raises
RejectError. Comparing with the time of receipt (`check_clock`) and decoding in
bulk are the collector's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contracts import telemetry
from contracts.decoders import campusiot, movebank


@dataclass(frozen=True, slots=True)
class Decoder:
    """How the messages of one topic become events.

    `version` changes whenever the same message would decode to something else.
    """

    name: str
    version: str
    source_system: str
    topic: str
    decode: Callable[[bytes], dict[str, Any]]


DECODERS: dict[str, Decoder] = {
    decoder.name: decoder
    for decoder in (
        Decoder(
            telemetry.COLLAR_DECODER,
            telemetry.COLLAR_DECODER_VERSION,
            "petwellness-collar",
            "telemetry",
            telemetry.parse_event,
        ),
        *(
            Decoder(vendor.NAME, vendor.VERSION, vendor.SOURCE_SYSTEM, vendor.TOPIC, vendor.decode)
            for vendor in (campusiot, movebank)
        ),
    )
}
