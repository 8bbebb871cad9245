"""Documents of visits: scans, what OCR read of them and how sure it was, who checked the doubtful ones.

Planned from a finished world and apart from it, so that a fleet of which only
telemetry is wanted does not pay for them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from simulation.randomness import stream
from simulation.world import Mutation, World, delivery_of, holding, last_rows

OCR_ENGINE = "rapidocr-3.10"
# The clinics take over what OCR is at least this sure of.
ACCEPTED_FROM = Decimal("0.800")
VALIDATORS = 4

_MEDIA = ("application/pdf", "image/jpeg", "image/tiff")
# What a worn scan does to letters.
_MISREAD = str.maketrans("oelisg", "0c1159")


@dataclass(frozen=True)
class Document:
    """A document as first stated at `scanned_at`, and what a person's decision changes; None while it waits."""

    row: dict[str, Any]
    scanned_at: datetime
    decision: dict[str, Any] | None

    @property
    def is_doubtful(self) -> bool:
        """Whether a person has to look: OCR read nothing, or was not sure of it."""
        confidence = self.row["ocr_confidence"]
        return confidence is None or confidence < ACCEPTED_FROM


def plan_documents(world: World) -> list[Document]:
    """Documents of part of the completed visits, in order of their visits."""
    owners, pets = _names(world, "owners"), _names(world, "pets")
    positions = {pet.pet_id: position for position, pet in enumerate(world.pets)}
    planned: list[Document] = []
    doubtful = 0
    for visit_id, visit in last_rows(world, "clinic_visits").items():
        if visit["status"] != "completed":
            continue
        rng = stream(world.config.seed, "documents", visit_id)
        if rng.random() >= world.config.documents:
            continue
        held = world.ownership[positions[visit["pet_id"]]]
        owner = holding(held, visit["visit_ts"]) or held[0]
        written = {
            "owner_name": owners[world.owner_ids[owner.target]],
            "pet_name": pets[visit["pet_id"]],
            "visit_date": visit["visit_ts"].date().isoformat(),
            "weight_kg": str(visit["weight_kg"]),
        }
        for copy in range(1 + int(rng.random() < 0.15)):
            number = f"{visit_id.removeprefix('visit-')}-{copy + 1}"
            planned.append(_document(world, visit, number, written, doubtful, rng))
            doubtful += planned[-1].is_doubtful
    return planned


def _names(world: World, feed: str) -> dict[str, str]:
    return {
        mutation.key: mutation.patch["name"]
        for mutation in world.mutations
        if mutation.feed == feed and mutation.patch is not None and "name" in mutation.patch
    }


def _document(
    world: World,
    visit: dict[str, Any],
    number: str,
    written: dict[str, str],
    doubtful_before: int,
    rng: np.random.Generator,
) -> Document:
    scanned_at = visit["visit_end_ts"] + timedelta(minutes=int(rng.integers(5, 240)))
    doubtful = rng.random() < world.config.doubtful_documents
    low, high = (0.35, 0.79) if doubtful else (0.80, 0.999)
    confidence = Decimal(f"{rng.uniform(low, high):.3f}")
    # Every sixth doubtful one cannot be read at all, every fourth is left lying.
    unreadable, left_lying = doubtful and doubtful_before % 6 == 4, doubtful_before % 4 == 0
    read = {name: text.translate(_MISREAD) for name, text in written.items()} if doubtful else written
    row = {
        "document_id": f"document-{number}",
        "visit_id": visit["visit_id"],
        "pet_id": visit["pet_id"],
        "document_uri": f"s3://clinic-documents/{visit['visit_ts']:%Y/%m}/document-{number}",
        "media_type": _MEDIA[int(rng.choice(3, p=(0.70, 0.25, 0.05)))],
        "page_count": int(rng.integers(1, 7)),
        "sha256": hashlib.sha256(f"{world.config.seed}/document-{number}".encode()).hexdigest(),
        "ocr_engine": OCR_ENGINE,
        "ocr_fields": None if unreadable else read,
        "ocr_confidence": None if unreadable else confidence,
        "review_status": "pending" if doubtful else "auto_accepted",
        "validator_id": None,
        "validated_at": None,
    }
    hours, rejected = float(rng.uniform(2, 60)), rng.random() < 0.15
    validator = f"validator-{int(rng.integers(VALIDATORS)) + 1:02d}"
    if not doubtful or left_lying:
        return Document(row, scanned_at, None)
    decision: dict[str, Any] = {
        "review_status": "rejected" if rejected else "validated",
        "validator_id": validator,
        "validated_at": scanned_at + timedelta(seconds=int(hours * 3600)),
    }
    # Whoever validates corrects what was read; how sure OCR was stays on record.
    return Document(row, scanned_at, decision if rejected else {**decision, "ocr_fields": written})


def document_mutations(world: World, documents: Iterable[Document]) -> Iterator[Mutation]:
    """Each document's first statement and the decision on it, as far as the period's extracts see them."""
    for document in documents:
        statements = [(document.scanned_at, document.row)]
        if document.decision is not None:
            statements.append((document.decision["validated_at"], document.decision))
        for changed_at, patch in statements:
            delivery = delivery_of(world.config, changed_at)
            if delivery is not None:
                yield Mutation("visit_documents", document.row["document_id"], changed_at, delivery, patch)
