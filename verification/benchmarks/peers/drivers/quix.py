"""Quix Streams from a topic to its local file sink; runs in an environment of its own.

The value is taken as bytes and parsed in a step of ours, since its own JSON
deserializer would drop the raw message.
"""

import json
import sys

import orjson
from quixstreams import Application
from quixstreams.sinks.community.file.formats import ParquetFormat
from quixstreams.sinks.community.file.local import LocalFileSink


def parsed(value: bytes) -> dict[str, object]:
    """The fields of a message and the message."""
    event = orjson.loads(value)
    event["payload"] = value.decode()
    return event


def main(job: dict[str, str], messages: int, commit_every: int) -> None:
    """Read `messages` messages of the topic into Parquet files below the working folder's `output`."""
    application = Application(
        broker_address=job["bootstrap"],
        consumer_group=job["group"],
        auto_offset_reset="earliest",
        commit_every=commit_every,
        commit_interval=3600,
        auto_create_topics=False,
        loglevel="WARNING",
    )
    topic = application.topic(job["topic"], key_deserializer="bytes", value_deserializer="bytes")
    frame = application.dataframe(topic)
    frame = frame.apply(parsed)
    frame.sink(LocalFileSink(directory="output", format=ParquetFormat(compression="zstd")))
    print("reads now", flush=True)
    application.run(count=messages, collect=False)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    main(told, told["messages"], told["commit_every"])
