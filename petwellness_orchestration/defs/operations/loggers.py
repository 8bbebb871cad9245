"""The logger of headless runs: one line per step and per message of ours, with the time since the start."""

import logging

import dagster as dg


class _ProgressHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from petwellness_orchestration.cli.console import say

        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        step = meta.get("step_key") or ""
        if event is None:
            message = meta.get("orig_message", record.getMessage())
            # The failed step says what is wrong; a line for each step behind it does not help.
            if record.levelno >= logging.INFO and not message.startswith("Dependencies for step"):
                say(f"{step}: {message}")
        elif event.event_type_value == "STEP_START":
            say(f"{step} ...")
        elif event.event_type_value == "STEP_FAILURE":
            say(f"{step} FAILED")


@dg.logger
def progress(_context: dg.InitLoggerContext) -> logging.Logger:
    """A logger of its own for each run, so that no handler is added twice."""
    logger = logging.Logger("petwellness.progress", level=logging.DEBUG)
    logger.addHandler(_ProgressHandler())
    return logger
