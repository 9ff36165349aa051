"""The travel agent's tools: weather and local events, from a built-in table of demo data.

The signatures are those of Agent Framework's reliable streaming sample. Both tools answer from the tables
below, the same for the same question and without a network, so that the sample runs anywhere. To go live,
replace their bodies with calls to real services; the agents need no change.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

#: Characters of an argument that an answer repeats: room for any real place or date.
_SHOWN_LIMIT: Final = 80
#: Unlisted places differ from the default climate by up to this many °C, so that neighbours don't look alike.
_CLIMATE_SPREAD_C: Final = 3


class _Season(IntEnum):
    WINTER = 0
    SPRING = 1
    SUMMER = 2
    AUTUMN = 3


@dataclass(frozen=True, slots=True)
class _Weather:
    condition: str
    high_c: int
    low_c: int


@dataclass(frozen=True, slots=True)
class _City:
    #: Winter, spring, summer, autumn: the local seasons.
    weather: tuple[_Weather, _Weather, _Weather, _Weather]
    #: One highlight per season, in the same order.
    highlights: tuple[str, str, str, str]
    all_year: tuple[str, ...]
    is_southern: bool = False


def get_weather_forecast(
    destination: Annotated[str, "The destination city or location"],
    date: Annotated[str, 'The date for the forecast (e.g. "2026-04-15", "mid-July" or "next Monday")'],
) -> str:
    """Get the weather forecast for a destination on a date, to give weather-aware recommendations.

    This is demo data: typical weather for the season, from a built-in table, not a live forecast.
    """
    season = _season(date, city=_find_city(destination))
    weather = _weather(destination, _Season.SPRING if season is None else season)
    lines = [
        f"Weather forecast for {_shown(destination, 'your destination')} ({_shown(date, 'no date given')}):",
        f"Conditions: {weather.condition}",
        f"High: {weather.high_c}°C ({_fahrenheit(weather.high_c)}°F)",
        f"Low: {weather.low_c}°C ({_fahrenheit(weather.low_c)}°F)",
        f"Recommendation: {_recommendation(weather)}",
    ]
    if season is None:
        lines.append("Note: no month could be read from the date, so these are typical spring figures.")
    lines.append("Source: demo data, not a live forecast.")
    return "\n".join(lines)


def get_local_events(
    destination: Annotated[str, "The destination city or location"],
    date: Annotated[str, 'The date or period to look at (e.g. "2026-04-15", "mid-July" or "next week")'],
) -> str:
    """Get local events and activities at a destination around a date.

    This is demo data: things typical of the place and season, from a built-in table, not a live calendar.
    """
    city = _find_city(destination) or _ELSEWHERE
    season = _season(date, city=city)
    seasonal = city.highlights if season is None else (city.highlights[season],)
    lines = [f"Local events in {_shown(destination, 'your destination')} ({_shown(date, 'no date given')}):"]
    lines += [f"• {event}" for event in (*seasonal, *city.all_year)]
    lines.append("Source: demo data, not a live calendar.")
    return "\n".join(lines)


def _find_city(destination: str) -> _City | None:
    text = _name(destination)
    if text in _CAPITALS:
        return _CITIES[_CAPITALS[text]]
    for name, city in _CITY_NAMES.items():
        # Word boundaries mean nothing between ideographs.
        if re.search(rf"\b{name}\b", text) or (not name.isascii() and name in text):
            return _CITIES[city]
    return None


def _name(destination: str) -> str:
    return " ".join(destination.casefold().split())


def _weather(destination: str, season: _Season) -> _Weather:
    city = _find_city(destination)
    if city is not None:
        return city.weather[season]
    typical = _ELSEWHERE.weather[season]
    # Not hash(): that differs from process to process.
    digest = zlib.crc32(_name(destination).encode(errors="replace"))
    shift = digest % (2 * _CLIMATE_SPREAD_C + 1) - _CLIMATE_SPREAD_C
    return _Weather(typical.condition, typical.high_c + shift, typical.low_c + shift)


def _season(date: str, *, city: _City | None) -> _Season | None:
    """The local season of a date, or ``None`` where no month or season can be read from it."""
    text = date.casefold()
    for word, season in _SEASON_WORDS.items():
        if re.search(rf"\b{word}\b", text):
            return season
    month = _month(text)
    if month is None:
        return None
    is_southern = city is not None and city.is_southern
    return _Season((month % 12 // 3 + (2 if is_southern else 0)) % 4)


def _month(text: str) -> int | None:
    named = _MONTH_NAME.search(text)
    if named:
        return _MONTHS.index(named[1]) + 1
    for holiday, month in _HOLIDAY_MONTHS.items():
        if holiday in text:
            return month
    for pattern in _MONTH_NUMBERS:
        numbered = pattern.search(text)
        if numbered and 1 <= int(numbered["month"]) <= len(_MONTHS):
            return int(numbered["month"])
    return None


def _recommendation(weather: _Weather) -> str:
    condition = weather.condition.casefold()
    advice = next(text for up_to_c, text in _ADVICE if weather.high_c <= up_to_c)
    if any(word in condition for word in ("rain", "shower", "storm", "drizzle")):
        advice += "; pack an umbrella and keep an indoor alternative"
    elif "snow" in condition:
        advice += "; wear shoes with a good grip"
    elif "sun" in condition or "clear" in condition:
        advice += "; wear sunscreen"
    return advice[0].upper() + advice[1:] + "."


def _fahrenheit(celsius: int) -> int:
    return round(celsius * 9 / 5 + 32)


def _shown(value: str, default: str) -> str:
    # On one line and bounded: an argument must not be able to forge further lines of the answer.
    text = " ".join(value.split())
    return (text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…") or default


#: What to do on a day whose high in °C is up to this.
_ADVICE: Final = (
    (5, "dress in warm layers with a windproof coat, and plan cosy indoor breaks"),
    (16, "bring a warm layer, and plan outdoor stops for midday"),
    (29, "ideal for walking; a light jacket is enough for the evenings"),
    (99, "sightsee early and late, rest in the shade at noon, and carry water"),
)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAME: Final = re.compile(
    r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    r"(?:uary|ruary|ch|il|e|y|ust|t|tember|ober|ember)?(?![^\W\d_])"
)
#: 2026-04-15, 2026/4; then 15.04.2026, 15/4/2026; then 4月.
_MONTH_NUMBERS: Final = (
    re.compile(r"(?<!\d)\d{4}[-/.](?P<month>\d{1,2})(?!\d)"),
    re.compile(r"(?<!\d)\d{1,2}[-/.](?P<month>\d{1,2})[-/.]\d{2,4}(?!\d)"),
    re.compile(r"(?<!\d)(?P<month>\d{1,2})\s*[月월]"),
)
_HOLIDAY_MONTHS: Final = {"christmas": 12, "new year": 1, "easter": 4, "cherry blossom": 4}
_SEASON_WORDS: Final = {
    "winter": _Season.WINTER,
    "spring": _Season.SPRING,
    "summer": _Season.SUMMER,
    "autumn": _Season.AUTUMN,
    "fall": _Season.AUTUMN,
}

_CITIES: Final = {
    "Tokyo": _City(
        weather=(
            _Weather("Clear and crisp", 10, 2),
            _Weather("Mild and sunny, a light shower now and then", 18, 10),
            _Weather("Hot and humid with evening thunderstorms", 31, 24),
            _Weather("Sunny and comfortable", 21, 14),
        ),
        highlights=(
            "🎇 Winter illuminations along Marunouchi and Roppongi",
            "🌸 Cherry blossom viewing in Ueno Park and along the Meguro River",
            "🎆 Sumida River fireworks and Bon-odori dances in the parks",
            "🍁 Golden ginkgo avenue at Meiji Jingu Gaien",
        ),
        all_year=("🎨 Digital art by teamLab at Azabudai Hills", "🐟 Breakfast sushi at Toyosu Market"),
    ),
    "Kyoto": _City(
        weather=(
            _Weather("Cold and clear with a dusting of snow", 9, 1),
            _Weather("Mild and sunny", 20, 9),
            _Weather("Hot, humid and mostly sunny", 33, 24),
            _Weather("Cool, clear and colourful", 21, 12),
        ),
        highlights=(
            "⛩️ New Year bells and first shrine visits at Yasaka Shrine",
            "🌸 Evening cherry blossom light-up in Maruyama Park",
            "🏮 Gion Matsuri floats and night stalls",
            "🍁 Maple light-up at Eikan-do temple",
        ),
        all_year=("🍵 Tea ceremony in Higashiyama", "🎎 Maiko dance evening at Gion Corner"),
    ),
    "Paris": _City(
        weather=(
            _Weather("Grey with light drizzle", 8, 3),
            _Weather("Mild, sun and showers in turn", 16, 7),
            _Weather("Warm and sunny", 26, 16),
            _Weather("Cool with some rain", 16, 9),
        ),
        highlights=(
            "🎄 Christmas windows and the Tuileries winter market",
            "🌷 Gardens in bloom at Versailles with the musical fountains",
            "🎶 Fête de la Musique stages and open-air cinema at La Villette",
            "🎭 Nuit Blanche: art in the streets all night",
        ),
        all_year=("🎷 Late jazz in the Latin Quarter", "🥖 Sunday market at Bastille"),
    ),
    "London": _City(
        weather=(
            _Weather("Overcast with drizzle", 8, 3),
            _Weather("Bright spells and showers", 15, 6),
            _Weather("Pleasantly warm, partly sunny", 24, 14),
            _Weather("Cool, breezy, some rain", 15, 9),
        ),
        highlights=(
            "🎄 Ice rink at Somerset House and the South Bank winter market",
            "🌺 Spring blooms at Kew Gardens",
            "🎻 BBC Proms at the Royal Albert Hall",
            "🎬 London Film Festival screenings on the South Bank",
        ),
        all_year=("🎭 West End show with same-day tickets", "🧀 Tastings at Borough Market"),
    ),
    "New York": _City(
        weather=(
            _Weather("Cold with a chance of snow", 4, -3),
            _Weather("Mild and breezy, some showers", 17, 8),
            _Weather("Hot and sunny", 30, 21),
            _Weather("Crisp and sunny", 18, 10),
        ),
        highlights=(
            "⛸️ Skating under the tree at Rockefeller Center",
            "🌸 Cherry blossoms at Brooklyn Botanic Garden",
            "🎭 Shakespeare in the Park",
            "🍂 Foliage walks in Central Park and the Village Halloween parade",
        ),
        all_year=("🎺 Jazz at the Village Vanguard", "🌆 Sunset from the Brooklyn Bridge"),
    ),
    "Rome": _City(
        weather=(
            _Weather("Cool with some rain", 12, 4),
            _Weather("Warm and sunny", 20, 9),
            _Weather("Hot and very sunny", 32, 20),
            _Weather("Mild, sunny, an occasional shower", 22, 13),
        ),
        highlights=(
            "🎄 Nativity scenes and the Piazza Navona winter fair",
            "🌿 Azaleas on the Spanish Steps and Rome's birthday parade",
            "🎶 Opera under the stars at the Baths of Caracalla",
            "🎨 Romaeuropa festival of dance and theatre",
        ),
        all_year=("🍝 Evening food walk in Trastevere", "🛍️ Sunday flea market at Porta Portese"),
    ),
    "Barcelona": _City(
        weather=(
            _Weather("Cool and mostly sunny", 14, 7),
            _Weather("Mild and sunny", 19, 12),
            _Weather("Hot and sunny by the sea", 29, 22),
            _Weather("Warm, sunny, a short storm now and then", 22, 15),
        ),
        highlights=(
            "👑 Three Kings parade at the old port",
            "🌹 Sant Jordi: books and roses on La Rambla",
            "🎶 Festa Major de Gràcia with decorated streets",
            "🗼 La Mercè: human towers and fire runs",
        ),
        all_year=("💃 Flamenco at Palau de la Música", "🍷 Tapas crawl in El Born"),
    ),
    "Lisbon": _City(
        weather=(
            _Weather("Mild with some rain", 15, 9),
            _Weather("Sunny and fresh", 20, 12),
            _Weather("Hot, clear, windy in the evening", 28, 18),
            _Weather("Warm and sunny, some showers", 22, 15),
        ),
        highlights=(
            "🎄 Lights and roasted chestnuts in the Baixa",
            "🌼 Carnation day concerts in April and jacarandas in May",
            "🐟 Santo António street parties with grilled sardines",
            "🏄 World-class surf at Ericeira and wine harvest in Setúbal",
        ),
        all_year=("🎸 Fado night in Alfama", "🎨 LX Factory Sunday market"),
    ),
    "Seoul": _City(
        weather=(
            _Weather("Cold, dry and clear", 3, -5),
            _Weather("Mild and sunny, hazy at times", 18, 8),
            _Weather("Hot and humid with monsoon rain", 29, 22),
            _Weather("Crisp and sunny", 20, 10),
        ),
        highlights=(
            "⛸️ Skating at Seoul Plaza and the lantern festival on Cheonggyecheon",
            "🌸 Cherry blossoms along Yeouido and the lotus lantern parade",
            "🌈 Banpo Bridge fountain and the Han River night market",
            "🍁 Foliage in Changdeokgung's secret garden",
        ),
        all_year=("🥁 Nanta percussion show in Myeongdong", "🥟 Street food at Gwangjang Market"),
    ),
    "Bangkok": _City(
        weather=(
            _Weather("Sunny, dry and less humid", 32, 22),
            _Weather("Very hot and sunny", 36, 27),
            _Weather("Hot with afternoon monsoon rain", 34, 26),
            _Weather("Humid with heavy showers", 33, 25),
        ),
        highlights=(
            "🎶 Open-air concerts in Lumphini Park",
            "💦 Songkran water festival",
            "🕯️ Candle processions at the temples for Asalha Bucha",
            "🏮 Loy Krathong lanterns on the Chao Phraya",
        ),
        all_year=("🥊 Muay Thai at Rajadamnern Stadium", "🛶 Weekend floating market at Khlong Lat Mayom"),
    ),
    "Sydney": _City(
        weather=(
            _Weather("Mild and mostly sunny", 17, 8),
            _Weather("Warm and sunny", 23, 14),
            _Weather("Hot and sunny with a sea breeze", 27, 20),
            _Weather("Mild, sunny, some showers", 23, 15),
        ),
        highlights=(
            "💡 Vivid Sydney light walk and whale watching",
            "🗿 Sculpture by the Sea from Bondi to Tamarama",
            "🎆 Harbour fireworks and Sydney Festival",
            "🎭 Royal Easter Show and outdoor opera on the harbour",
        ),
        all_year=("🎼 Evening at the Opera House", "🐠 Lunch at the Sydney Fish Market"),
        is_southern=True,
    ),
    "Reykjavik": _City(
        weather=(
            _Weather("Cold and windy with snow", 2, -3),
            _Weather("Cool and changeable, some showers", 7, 1),
            _Weather("Cool, bright, light almost all night", 14, 9),
            _Weather("Chilly, windy, rain at times", 7, 2),
        ),
        highlights=(
            "🌌 Northern lights hunts and the Winter Lights Festival",
            "🐦 Puffins return; first whale watching tours",
            "☀️ Midnight sun concerts and Culture Night",
            "🎧 Iceland Airwaves music festival",
        ),
        all_year=("♨️ Evening soak at the Sky Lagoon", "🎶 Concert at the Harpa hall"),
    ),
}
_OTHER_NAMES: Final = {
    "東京": "Tokyo",
    "京都": "Kyoto",
    "서울": "Seoul",
    "nyc": "New York",
    "reykjavík": "Reykjavik",
    "lisboa": "Lisbon",
}
#: A whole country is answered for by its capital, but a country after another city's name is not.
_CAPITALS: Final = {"japan": "Tokyo", "france": "Paris", "italy": "Rome", "iceland": "Reykjavik"}
_CITY_NAMES: Final = {name.casefold(): name for name in _CITIES} | _OTHER_NAMES
#: Unlisted places are taken for temperate and northern.
_ELSEWHERE: Final = _City(
    weather=(
        _Weather("Cool with some rain", 7, 1),
        _Weather("Mild, sun and showers in turn", 17, 8),
        _Weather("Warm and mostly sunny", 26, 16),
        _Weather("Cool and partly cloudy", 16, 8),
    ),
    highlights=(
        "🎄 Seasonal market on the main square",
        "🌷 Spring fair with local crafts",
        "🎶 Open-air concerts in the park",
        "🍇 Harvest festival with regional food",
    ),
    all_year=("🚶 Guided walk through the old town", "🧺 Farmers' market on Saturday morning"),
)
