"""Made-up names of people, pets, streets and colours; which one somebody gets is drawn in `world`."""

# fmt: off
FIRST_NAMES = (
    "Ada", "Amir", "Bea", "Carlo", "Dana", "Elias", "Fiona", "Goran", "Hana", "Ivo", "Jana", "Kofi",
    "Lena", "Milo", "Nora", "Omar", "Pia", "Quinn", "Rosa", "Sami", "Tessa", "Uma", "Viktor",
    "Wanda", "Xenia", "Yara", "Zoe", "Anton", "Bruna", "Cem",
)
LAST_NAMES = (
    "Abel", "Bachmann", "Castel", "Dorn", "Egli", "Farago", "Gruber", "Hirt", "Imhof", "Jost",
    "Kaya", "Lorenz", "Marti", "Nair", "Oberli", "Pinto", "Rossi", "Suter", "Tanner", "Ulrich",
    "Vogel", "Weiss", "Yilmaz", "Zahnd",
)
STREETS = (
    "Ahorn", "Birken", "Eichen", "Fichten", "Hasel", "Kastanien", "Linden", "Pappel", "Tannen",
    "Ulmen", "Weiden", "Zedern",
)
PET_NAMES = (
    "Balou", "Bella", "Charlie", "Coco", "Felix", "Findus", "Gismo", "Kira", "Leo", "Lilly",
    "Lucky", "Luna", "Maja", "Max", "Mia", "Milo", "Minka", "Nala", "Nemo", "Oscar", "Pepper",
    "Rocky", "Sammy", "Shadow", "Simba", "Socke", "Tiger", "Toby", "Whisky", "Zora",
)
COLORS = (
    "black", "white", "brown", "grey", "red", "tricolour", "tabby", "cream",
)
# fmt: on
