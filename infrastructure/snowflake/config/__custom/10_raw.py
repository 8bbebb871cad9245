"""The part of the configuration that follows from the contract: see `infrastructure.snowflake.raw_objects`."""

from infrastructure.snowflake.raw_objects import add_raw_objects


def handler(config):
    add_raw_objects(config)
