"""Reference table of 30 dog and cat breeds.

Adult weights, heights at the withers and life expectancies are rounded general
knowledge of the kind breed clubs publish for both sexes together; they are
plausible ranges for a simulation, not veterinary reference values.
"""

from typing import NamedTuple


class Breed(NamedTuple):
    """One breed; weights in kg, heights in cm, life expectancy in years."""

    breed_id: str
    species: str
    breed: str
    breed_group: str
    min_weight_kg: float
    max_weight_kg: float
    min_height_cm: float
    max_height_cm: float
    min_life_expectancy_years: float
    max_life_expectancy_years: float


BREEDS: tuple[Breed, ...] = tuple(
    Breed(f"breed-{number:03d}", *row)
    for number, row in enumerate(
        [
            ("dog", "Labrador Retriever", "sporting", 25, 36, 54, 62, 10, 12),
            ("dog", "Golden Retriever", "sporting", 25, 34, 51, 61, 10, 12),
            ("dog", "German Shepherd", "herding", 22, 40, 55, 65, 9, 13),
            ("dog", "Border Collie", "herding", 14, 20, 46, 56, 12, 15),
            ("dog", "Australian Shepherd", "herding", 16, 32, 46, 58, 12, 15),
            ("dog", "French Bulldog", "non-sporting", 8, 14, 27, 33, 10, 12),
            ("dog", "Bulldog", "non-sporting", 18, 25, 31, 40, 8, 10),
            ("dog", "Standard Poodle", "non-sporting", 18, 32, 45, 62, 12, 15),
            ("dog", "Beagle", "hound", 9, 14, 33, 41, 10, 15),
            ("dog", "Dachshund", "hound", 7, 15, 20, 27, 12, 16),
            ("dog", "Chihuahua", "toy", 1.5, 3, 13, 20, 14, 16),
            ("dog", "Yorkshire Terrier", "toy", 2, 3.5, 15, 23, 11, 15),
            ("dog", "Pug", "toy", 6, 9, 25, 33, 12, 15),
            ("dog", "Maltese", "toy", 2, 4, 18, 25, 12, 15),
            ("dog", "Jack Russell Terrier", "terrier", 5, 8, 25, 38, 12, 16),
            ("dog", "West Highland White Terrier", "terrier", 6, 10, 25, 30, 12, 15),
            ("dog", "Boxer", "working", 25, 36, 53, 64, 9, 12),
            ("dog", "Rottweiler", "working", 35, 60, 56, 69, 8, 10),
            ("dog", "Bernese Mountain Dog", "working", 32, 52, 58, 70, 7, 9),
            ("dog", "Siberian Husky", "working", 16, 27, 51, 60, 12, 14),
            ("cat", "European Shorthair", "shorthair", 3, 7, 23, 28, 15, 20),
            ("cat", "British Shorthair", "shorthair", 3.5, 8, 30, 36, 12, 17),
            ("cat", "Siamese", "oriental", 2.5, 5.5, 20, 25, 12, 18),
            ("cat", "Maine Coon", "longhair", 4.5, 9.5, 25, 41, 12, 15),
            ("cat", "Norwegian Forest Cat", "longhair", 4, 9, 23, 33, 13, 16),
            ("cat", "Persian", "longhair", 3, 6, 20, 25, 12, 17),
            ("cat", "Ragdoll", "longhair", 4.5, 9, 23, 28, 12, 17),
            ("cat", "Bengal", "shorthair", 3.5, 7, 20, 25, 12, 16),
            ("cat", "Abyssinian", "shorthair", 3, 5, 20, 25, 12, 15),
            ("cat", "Sphynx", "hairless", 3, 5.5, 20, 25, 12, 15),
        ],
        start=1,
    )
)
