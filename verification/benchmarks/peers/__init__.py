"""Other programs that read a Kafka topic into Parquet files, measured on the messages the collector gets.

`measure` runs each of them in an environment of its own and reads back what it
wrote. What runs and how it is configured is in `contenders`, how they get here
in `installs`, how a process is watched in `watch`, how files are read back in
`verify`. The collector itself is measured in `verification.benchmarks.collector`.
"""

from verification.benchmarks.peers.contenders import PEERS
from verification.benchmarks.peers.figures import Figures, NotMeasured, Outcome, lines
from verification.benchmarks.peers.runner import measure, run

__all__ = ["PEERS", "Figures", "NotMeasured", "Outcome", "lines", "measure", "run"]
