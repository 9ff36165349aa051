"""What a traveller asks of the demo model: the user's messages in, a trip or a short answer out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hosting.demo.places import COUNTRY_NAMES, KNOWN_NAMES, display_name, place

DEFAULT_DAYS: Final = 3
#: Two weeks: what can be told before nobody reads on.
MAX_DAYS: Final = 14
#: Each added destination makes a trip this much longer, unless the traveller says otherwise.
_DAYS_PER_ADDED_DESTINATION: Final = 2
#: More would leave each of them less than a glance, and cost two tool calls each.
_MAX_DESTINATIONS: Final = 4
#: Characters of one message that are looked at: a long one is cut rather than searched for seconds.
_MAX_MESSAGE_CHARACTERS: Final = 4_000
_FLEXIBLE: Final = "flexible dates"
#: Words of a place name that is not in the demo's atlas.
_MAX_NAME_WORDS: Final = 4


@dataclass(frozen=True, slots=True)
class Trip:
    """A trip to plan."""

    #: In travelling order; at least one.
    destinations: tuple[str, ...]
    days: int
    #: When, in the traveller's words.
    date: str = _FLEXIBLE
    #: How many of the destinations an earlier turn had planned already.
    planned_before: int = 0


def understand(user_messages: Sequence[str]) -> Trip | str:
    """The trip that the latest of a conversation's user messages asks for, or else a short answer to it.

    The earlier messages give the trip that the latest one may build on.
    """
    trip: Trip | None = None
    outcome: Trip | str = _WHERE_TO
    for number, message in enumerate(user_messages):
        outcome = _next(trip, message[:_MAX_MESSAGE_CHARACTERS], turn=number)
        if isinstance(outcome, Trip):
            trip = outcome
    return outcome


def _next(trip: Trip | None, message: str, *, turn: int) -> Trip | str:
    is_travel = bool(_TRAVEL.search(message))
    if _JOKE.search(message) and not is_travel:
        return _JOKES[turn % len(_JOKES)]
    days, date = _days(message), _date(message)
    found = _destinations(message, is_follow_up=trip is not None)
    if trip is not None:
        return _follow_up(trip, message, found=found, days=days, date=date)
    if found:
        return Trip(found, max(days or DEFAULT_DAYS, len(found)), date or _FLEXIBLE)
    return _WHERE_TO if is_travel or days or date else _WHAT_I_AM


def _follow_up(
    trip: Trip, message: str, *, found: tuple[str, ...], days: int | None, date: str | None
) -> Trip | str:
    date = date or trip.date
    if not found and _NEIGHBOURS.search(message):
        found = tuple(name for each in trip.destinations for name in place(each).neighbours)[:2]
        if not found:
            return _NO_NEIGHBOURS.format(destination=trip.destinations[0])
        return _extended(trip, found, days=days, date=date)
    if found and _EXTEND.search(message):
        return _extended(trip, found, days=days, date=date)
    if found:
        return Trip(found, max(days or DEFAULT_DAYS, len(found)), date)
    if days or date != trip.date or _TRAVEL.search(message) or _AGAIN.search(message):
        days = max(days or trip.days, len(trip.destinations))
        return Trip(trip.destinations, days, date, planned_before=len(trip.destinations))
    return _WHAT_NEXT.format(destination=trip.destinations[0])


def _extended(trip: Trip, added: tuple[str, ...], *, days: int | None, date: str) -> Trip:
    destinations = tuple(dict.fromkeys(trip.destinations + added))[:_MAX_DESTINATIONS]
    growth = _DAYS_PER_ADDED_DESTINATION * (len(destinations) - len(trip.destinations))
    days = min(days or trip.days + growth, MAX_DAYS)
    return Trip(destinations, max(days, len(destinations)), date, planned_before=len(trip.destinations))


def _days(message: str) -> int | None:
    counted = _COUNTED_DAYS.search(message)
    if not counted:
        return next(
            (days for word, days in _DAY_WORDS.items() if re.search(word, message, re.IGNORECASE)), None
        )
    amount, unit = counted["amount"].casefold(), (counted["unit"] or "day").casefold()
    number = int(amount) if amount.isdecimal() else _NUMBER_WORDS[amount]
    if unit.startswith("night"):
        number += 1
    return min(max(number * (7 if unit.startswith("week") else 1), 1), MAX_DAYS)


def _date(message: str) -> str | None:
    found = _DATE.search(message)
    return found[0] if found else None


def _destinations(message: str, *, is_follow_up: bool) -> tuple[str, ...]:
    """Every place that a message names as one to go to, in the order of their mention."""
    message = _ORIGIN.sub(lambda origin: " " * len(origin[0]), message)
    message = _IN_COUNTRY.sub(_without_country, message)
    places = {found.start(): display_name(found[0]) for found in _KNOWN.finditer(message)}
    message = _KNOWN.sub(lambda known: _TAKEN * len(known[0]), message)
    for lead in _LEAD.finditer(message):
        # "Include" and "add" lead to a place once there is a trip; before that, mostly to wishes.
        if is_follow_up or not lead["more"]:
            places.update(_names(message, lead.end(), any_case=lead["strong"] is not None))
    return tuple(dict.fromkeys(places[start] for start in sorted(places)))[:_MAX_DESTINATIONS]


def _without_country(match: re.Match[str]) -> str:
    """Blank out a country that only says where the place before it is: France is not in Japan."""
    is_list = match["place"].casefold() in _COUNTRY_NAMES
    return match[0] if is_list else match["place"] + " " * (len(match[0]) - len(match["place"]))


def _names(message: str, start: int, *, any_case: bool) -> dict[int, str]:
    """The place names from ``start`` on, by where they begin: "Ljubljana, Bled and Piran" are three.

    Names are told by their capital letters; with ``any_case``, the first may be written small.
    """
    names: dict[int, list[str]] = {}
    current: list[str] = []
    for word in _WORD.finditer(message, start):
        text, after = word["word"], word["after"].strip()
        if text.casefold() in _AND:
            current, any_case = [], False
            continue
        if text[0] != _TAKEN:
            if not _may_be_name(text, any_case=any_case, follows=bool(current)):
                break
            # A name that begins small is small throughout.
            any_case = any_case and text[0].islower()
            if not current:
                names[word.start()] = current
        current.append(text)
        if len(current) >= _MAX_NAME_WORDS or after not in ("", ","):
            break
        if after == ",":
            current, any_case = [], False
    return {position: _titled(words) for position, words in names.items()}


def _may_be_name(word: str, *, any_case: bool, follows: bool) -> bool:
    if follows and word in _PARTICLES:
        return True
    return word.casefold() not in _NO_PLACES and (any_case or not word[0].islower()) and word[0].isalpha()


def _titled(words: Sequence[str]) -> str:
    while words[-1] in _PARTICLES:
        words = words[:-1]
    return " ".join(
        word.capitalize() if word.islower() and word not in _PARTICLES else word for word in words
    )


_JOKE: Final = re.compile(r"\b(?:joke|funny|make me laugh|pun)\b", re.IGNORECASE)
_TRAVEL: Final = re.compile(
    r"\b(?:trips?|travel\w*|itinerar\w+|vacations?|holidays?|journey|tour|getaway|visit\w*|sightsee\w*"
    r"|city break|weekend in|fly(?:ing)? to|destination|honeymoon)\b|旅行|여행",
    re.IGNORECASE,
)
_NEIGHBOURS: Final = re.compile(
    r"\b(?:neighbou?r\w*|nearby|surrounding|adjacent|other (?:countries|cities|places))\b", re.IGNORECASE
)
_EXTEND: Final = re.compile(
    r"\b(?:also|as well|too|add\w*|includ\w*|extend\w*|plus|in addition|continue to|then go|after that)\b",
    re.IGNORECASE,
)
_AGAIN: Final = re.compile(
    r"\b(?:again|re-?(?:do|plan|write)|change|longer|shorter|cheaper|more detail\w*|instead|plan)\b",
    re.IGNORECASE,
)
_NUMBER_WORDS: Final = {
    word: number
    for number, word in enumerate(
        (
            *("one", "two", "three", "four", "five", "six", "seven"),
            *("eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"),
        ),
        start=1,
    )
}
_COUNTED_DAYS: Final = re.compile(
    # No digit, point or comma before it: "1,000 days" and "2.5 days" are nobody's zero or five.
    rf"(?<![\d.,])(?P<amount>\d{{1,4}}|\b(?:{'|'.join(_NUMBER_WORDS)})\b)"
    r"(?:[\s-]*(?:full|whole)?[\s-]*(?P<unit>days?|nights?|weeks?)\b|\s*(?:日間|日の|일))",
    re.IGNORECASE,
)
_DAY_WORDS: Final = {
    r"\b(?:a|the|one) fortnight\b": 14,
    r"\blong weekend\b": 3,
    r"\bweekend\b": 2,
    r"\b(?:a|one|the|this|next|whole|full) week\b|\bweek-?long\b": 7,
    r"\bday[- ]trip\b": 1,
}
#: "may" and "march" are months only with a capital letter.
_MONTH: Final = (
    r"(?:(?i:January|February|April|June|July|August|September|October|November|December)|March|May"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
_DATE: Final = re.compile(
    r"\b\d{4}-\d{1,2}-\d{1,2}\b"
    r"|\b(?:\d{1,2}(?:st|nd|rd|th)?\s+)?(?:early |mid-?\s?|late )?"
    rf"{_MONTH}\b(?:\s+\d{{1,2}}\b)?(?:,?\s+\d{{4}}\b)?"
    r"|\b(?i:(?:next |this )?(?:spring|summer|autumn|winter)|christmas|easter|new year)\b(?:\s+\d{4}\b)?"
    r"|\b(?i:next (?:week|month|weekend|monday|tuesday|wednesday|thursday|friday|saturday|sunday))\b"
    r"|(?<!\d)\d{1,2}月"
)
_KNOWN: Final = re.compile(
    "|".join(rf"\b{re.escape(name)}\b" if name.isascii() else re.escape(name) for name in KNOWN_NAMES),
    re.IGNORECASE,
)
#: Where the traveller starts is not where the trip goes.
_ORIGIN: Final = re.compile(
    r"\b[Ff]rom\s+(?:[A-Z][\w'-]*)(?:\s+[A-Z][\w'-]*)*|\b(?:live|based|living)\s+in\s+[A-Z][\w'-]*"
)
_IN_COUNTRY: Final = re.compile(
    rf"(?P<place>[^\W\d_][\w'\u2019-]*),\s+(?:{'|'.join(COUNTRY_NAMES)})\b", re.IGNORECASE
)
_COUNTRY_NAMES: Final = frozenset(name.casefold() for name in COUNTRY_NAMES)
_LEAD: Final = re.compile(
    r"\b(?:(?P<strong>(?:trip|travel\w*|journey|tour|getaway|vacation|holiday|honeymoon|itinerary"
    r"|fly(?:ing)?|go(?:ing)?|days?|nights?|weeks?|weekend)\s+(?:to|in|for|around|through)"
    r"|visit(?:ing)?|explor(?:e|ing))"
    r"|to|in|around|through|(?P<more>add|include|also|plus))\s+(?:the\s+)?",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"(?P<word>&|[^\W_][\w'\u2019-]*)(?P<after>[.!?;:,)\"]*(?:\s+|$))?")
#: Stands in a message for the letters of a place that is found already. A letter, of no case and no language.
_TAKEN: Final = "ǂ"
_AND: Final = frozenset({"and", "then", "&"})
_PARTICLES: Final = frozenset({"de", "del", "di", "da", "la", "of", "am", "upon", "sur"})
#: What follows "to" or "in" and is no place.
_NO_PLACES: Final = frozenset(
    """
    a an the my our your his her their this that these those some any all me us i we you it them one ones
    for with without in to from on at by of or if but so as about which where when who what how please thanks
    next last early mid late spring summer autumn fall winter christmas easter today tomorrow days day nights
    night week weeks weekend month months year years see do be go get have make eat find stay know plan take
    enjoy learn tell give write explain help understand travel visit somewhere anywhere nowhere there here
    home again too also well detail details general total two three four five six seven eight nine ten
    neighbouring neighboring nearby surrounding more less other another country countries city cities place
    places budget family kids children friends work business fun january february march april may june july
    august september october november december jan feb mar apr jun jul aug sep sept oct nov dec usd eur gbp
    jpy dollars euros json markdown html english german french spanish italian japanese
    """.split()  # noqa: SIM905 - a list of a hundred and fifty quoted words is no easier to read
)

_JOKES: Final = (
    (
        "Why don't suitcases ever win an argument? 🧳 Because they always pack it in! 😄\n\n"
        "(I'm the offline demo model, so my jokes are in my luggage, not freshly made.)"
    ),
    (
        "I told my passport a secret. 🛂 Now everyone at the border stamps on it! 😄\n\n"
        "(From the offline demo model's small collection.)"
    ),
    (
        "Why did the aeroplane get sent to its room? ✈️ Bad altitude! 😄\n\n"
        "(From the offline demo model's small collection.)"
    ),
)
_WHERE_TO: Final = (
    "I'd love to plan that trip! 🧭 Where would you like to go? "
    'For example: "Plan a 3-day trip to Tokyo in April."'
)
_WHAT_I_AM: Final = (
    "Hello! 👋 I'm the offline demo model of this sample: a fixed program, not a real language model. I can "
    'plan trips ("Plan a 3-day trip to Paris"), build on them ("include neighbouring countries as well") and '
    "tell a short joke. For real answers, configure Azure OpenAI, OpenAI or a compatible endpoint."
)
_WHAT_NEXT: Final = (
    "Happy to help with your trip to {destination}! 🙂 As an offline demo model I can make it longer or "
    'shorter ("make it 5 days"), move it ("in October instead"), add places ("add Lisbon") or include '
    "neighbouring countries. For anything else, configure a real model."
)
_NO_NEIGHBOURS: Final = (
    "My small demo atlas doesn't know the neighbours of {destination}. 🗺️ Name the places to include, for "
    'example "add Paris as well", and I\'ll extend the plan.'
)
