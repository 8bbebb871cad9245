"""A fleet of collars, pets, households and clinics whose every fault and illness is known.

`FleetConfig` says how large and how faulty, `Fleet` makes the records, the
telemetry and the truth from it. Nothing here talks to a broker, a lake or a
warehouse: publishing and landing are the caller's.
"""

from simulation.config import FleetConfig
from simulation.fleet import Fleet
from simulation.telemetry import MessageBatch, WaveBatches
from simulation.truth import write_truth

__all__ = ["Fleet", "FleetConfig", "MessageBatch", "WaveBatches", "write_truth"]
