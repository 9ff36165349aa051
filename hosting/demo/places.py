"""What the demo model knows of the world: a dozen cities, their sights, food and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Place:
    """A city, in enough detail for a believable itinerary."""

    name: str
    emoji: str
    mornings: tuple[str, ...]
    afternoons: tuple[str, ...]
    food: tuple[str, ...]
    #: Destinations in neighbouring countries, nearest first; empty where the demo knows none.
    neighbours: tuple[str, ...] = ()


def place(destination: str) -> Place:
    """What is known of a destination: of its city, of its country's main city, or what holds anywhere."""
    text = destination.casefold()
    for name, known in _BY_NAME.items():
        # "Seoul, South Korea" is Seoul, but "Osaka, Japan" is not Tokyo.
        if text == name or text.startswith(f"{name},"):
            return known
    return ANYWHERE


def display_name(written: str) -> str:
    """A known name as it should be shown: ``東京`` and ``tokyo`` as Tokyo, ``japan`` as Japan."""
    return _DISPLAY_NAMES[written.casefold()]


_PLACES: Final = (
    Place(
        "Tokyo",
        "🗼",
        (
            "Senso-ji temple and Nakamise street in Asakusa",
            "Meiji Shrine and its forest",
            "Tsukiji food stalls",
        ),
        (
            "Shibuya Crossing and the Shibuya Sky deck",
            "Akihabara's arcades",
            "Hamarikyu Gardens by water bus",
        ),
        ("ramen in Shinjuku's alleys", "an izakaya in Yurakucho", "tempura in Asakusa"),
        ("Seoul, South Korea", "Manila, Philippines"),
    ),
    Place(
        "Kyoto",
        "⛩️",
        (
            "Fushimi Inari's thousand gates at sunrise",
            "Arashiyama bamboo grove",
            "Kinkaku-ji, the golden pavilion",
        ),
        ("Kiyomizu-dera and the Higashiyama lanes", "Nijo Castle", "the Philosopher's Path"),
        ("kaiseki in Pontocho", "matcha sweets in Uji", "tofu hot pot near Nanzen-ji"),
        ("Seoul, South Korea", "Manila, Philippines"),
    ),
    Place(
        "Paris",
        "🗼",
        ("the Louvre before the crowds", "Notre-Dame and the Île de la Cité", "Musée d'Orsay"),
        (
            "Montmartre and Sacré-Cœur",
            "the Marais and Place des Vosges",
            "the Eiffel Tower and the Seine quays",
        ),
        ("a bistro in the 11th arrondissement", "crêpes near Montparnasse", "steak-frites in Saint-Germain"),
        ("Brussels, Belgium", "Geneva, Switzerland"),
    ),
    Place(
        "London",
        "🎡",
        ("the Tower of London", "the British Museum", "Westminster Abbey and St James's Park"),
        ("the South Bank and Tate Modern", "Greenwich by river boat", "Camden's markets and Regent's Canal"),
        ("a curry on Brick Lane", "Sunday roast in a Hampstead pub", "dim sum in Chinatown"),
        ("Dublin, Ireland", "Paris, France"),
    ),
    Place(
        "New York",
        "🗽",
        (
            "the Statue of Liberty and Ellis Island",
            "the Metropolitan Museum",
            "the High Line and Chelsea Market",
        ),
        ("Central Park by bicycle", "the Brooklyn Bridge and DUMBO", "the Lower East Side and its museums"),
        (
            "pizza by the slice in Greenwich Village",
            "a deli on Houston Street",
            "hand-pulled noodles in Flushing",
        ),
        ("Montréal, Canada", "Mexico City, Mexico"),
    ),
    Place(
        "Rome",
        "🏛️",
        ("the Colosseum and the Forum", "the Vatican Museums", "the Borghese Gallery"),
        ("the Pantheon and Piazza Navona", "Trastevere's lanes", "the Appian Way by bicycle"),
        ("cacio e pepe in Testaccio", "supplì and pizza al taglio", "artichokes in the old Ghetto"),
        ("Ljubljana, Slovenia", "Marseille, France"),
    ),
    Place(
        "Barcelona",
        "🎨",
        ("the Sagrada Família", "Park Güell", "the Gothic Quarter and the cathedral"),
        ("Casa Batlló and Passeig de Gràcia", "Montjuïc by cable car", "Barceloneta beach"),
        ("tapas in El Born", "paella by the sea", "vermouth and anchovies in Sants"),
        ("Andorra la Vella, Andorra", "Lisbon, Portugal"),
    ),
    Place(
        "Lisbon",
        "🚋",
        ("the castle of São Jorge and Alfama", "Jerónimos Monastery in Belém", "the Tile Museum"),
        ("tram 28 to Estrela", "LX Factory", "the viewpoints of Graça"),
        ("grilled fish in Cacilhas", "pastéis de nata in Belém", "petiscos in Bairro Alto"),
        ("Seville, Spain", "Tangier, Morocco"),
    ),
    Place(
        "Seoul",
        "🏯",
        ("Gyeongbokgung palace and the guard change", "Bukchon's hanok lanes", "the National Museum"),
        ("Insadong's tea houses", "N Seoul Tower at sunset", "Hongdae's music streets"),
        ("barbecue in Mapo", "bibimbap near Jongno", "mung bean pancakes at Gwangjang Market"),
        ("Fukuoka, Japan", "Tokyo, Japan"),
    ),
    Place(
        "Bangkok",
        "🛕",
        (
            "the Grand Palace and Wat Phra Kaew",
            "Wat Arun across the river",
            "Wat Pho and its reclining Buddha",
        ),
        ("Jim Thompson House", "Chinatown by boat and on foot", "Chatuchak market"),
        ("boat noodles at Victory Monument", "street food on Yaowarat Road", "green curry by the river"),
        ("Siem Reap, Cambodia", "Luang Prabang, Laos"),
    ),
    Place(
        "Sydney",
        "🦘",
        (
            "the Opera House and the Botanic Garden",
            "the Bondi to Coogee walk",
            "the Rocks and Harbour Bridge",
        ),
        ("the ferry to Manly", "Taronga Zoo", "Surry Hills and its galleries"),
        ("seafood at Watsons Bay", "brunch in Newtown", "yum cha in Haymarket"),
        ("Auckland, New Zealand", "Suva, Fiji"),
    ),
    Place(
        "Reykjavik",
        "🌋",
        (
            "Hallgrímskirkja and the old town",
            "the Golden Circle: Þingvellir, Geysir, Gullfoss",
            "a whale watch",
        ),
        ("the Perlan museum", "the Blue Lagoon", "the Sun Voyager and the Harpa hall"),
        ("lamb soup by the old harbour", "hot dogs at Bæjarins Beztu", "Arctic char on Laugavegur"),
        ("Nuuk, Greenland", "Tórshavn, Faroe Islands"),
    ),
)
#: Where the demo knows nothing in particular, and what fills longer trips.
ANYWHERE: Final = Place(
    "anywhere",
    "🧭",
    (
        "a guided walk through the old town",
        "the main museum, early and unhurried",
        "the farmers' market, picking a picnic",
        "a bicycle tour along the water",
        "a cooking class with a local chef",
        "the botanical garden",
        "a day-trip train to the countryside",
        "an artisan's workshop",
        "the best viewpoint in morning light",
        "a slow breakfast and a neighbourhood without sights",
        "a second visit to your favourite place so far",
    ),
    (
        "the cathedral square and its side streets",
        "a boat trip",
        "a gallery of contemporary art",
        "the thermal baths or a swim",
        "a hike to a ridge with a view",
        "a tasting of regional specialities",
        "the craft shops and a long coffee",
        "a photo walk through the street-art quarter",
        "a park, a book and a bench",
        "the local history museum",
        "souvenirs, and postcards written on the spot",
    ),
    ("a family-run restaurant", "the market hall's stalls", "the dish the region is known for"),
)
_COUNTRIES: Final = {
    "Japan": "Tokyo",
    "France": "Paris",
    "England": "London",
    "Italy": "Rome",
    "Portugal": "Lisbon",
    "South Korea": "Seoul",
    "Thailand": "Bangkok",
    "Iceland": "Reykjavik",
}
COUNTRY_NAMES: Final = tuple(_COUNTRIES)
_OTHER_SPELLINGS: Final = {
    "東京": "Tokyo",
    "京都": "Kyoto",
    "서울": "Seoul",
    "日本": "Japan",
    "nyc": "New York",
    "new york city": "New York",
    "reykjavík": "Reykjavik",
    "lisboa": "Lisbon",
}
_CITIES: Final = {known.name: known for known in _PLACES}
_BY_NAME: Final = {
    **{name.casefold(): known for name, known in _CITIES.items()},
    **{country.casefold(): _CITIES[city] for country, city in _COUNTRIES.items()},
}
_DISPLAY_NAMES: Final = {
    **{name.casefold(): name for name in (*_CITIES, *_COUNTRIES)},
    # A neighbour is also known by its city alone.
    **{
        neighbour.split(",", 1)[0].casefold(): neighbour.split(",", 1)[0]
        for known in _PLACES
        for neighbour in known.neighbours
    },
    **_OTHER_SPELLINGS,
}
#: Every name that is recognised in a message in any case, longest first so that none hides a longer one.
KNOWN_NAMES: Final = tuple(sorted(_DISPLAY_NAMES, key=len, reverse=True))
