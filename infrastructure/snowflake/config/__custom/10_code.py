"""The part of the configuration that follows from schemas in the code: see `infrastructure.snowflake.code_objects`."""

from infrastructure.snowflake.code_objects import add_code_objects


def handler(config):
    add_code_objects(config)
