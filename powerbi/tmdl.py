"""Text in TMDL, the language of semantic models: objects, their properties and their children, by tabs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

# Names without these need no quotes.
_PLAIN = re.compile(r"\w+")
# Tags that stay the same from one generation to the next, so that reports keep their fields.
_TAGS = uuid.uuid5(uuid.NAMESPACE_URL, "https://petwellness.example/powerbi")


def quoted(name: str) -> str:
    """A name as TMDL writes it."""
    return name if _PLAIN.fullmatch(name) else "'{}'".format(name.replace("'", "''"))


def tag(*names: str) -> str:
    """The lineage tag of an object, from its names."""
    return str(uuid.uuid5(_TAGS, "/".join(names)))


@dataclass(frozen=True)
class Node:
    """An object: its declaration, description, properties (a value of None is a flag) and children."""

    declaration: str
    properties: dict[str, str | None] = field(default_factory=dict)
    description: str = ""
    children: tuple[Node, ...] = ()
    # Lines of an expression of several lines that follows the declaration.
    expression: tuple[str, ...] = ()

    def lines(self, depth: int = 0) -> Iterable[str]:
        indent = "\t" * depth
        if self.description:
            yield f"{indent}/// {' '.join(self.description.split())}"
        yield indent + self.declaration
        for line in self.expression:
            yield f"{indent}\t\t{line}" if line else ""
        for name, value in self.properties.items():
            yield f"{indent}\t{name}" if value is None else f"{indent}\t{name}: {value}"
        for child in self.children:
            yield ""
            yield from child.lines(depth + 1)


def document(nodes: Iterable[Node]) -> str:
    """A file of objects, an empty line between them."""
    return "\n\n".join("\n".join(node.lines()) for node in nodes) + "\n"
