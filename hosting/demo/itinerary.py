"""The demo model's itineraries: a trip and what the tools found out in, Markdown out. Pure text, no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hosting.demo.places import ANYWHERE, Place, place
from hosting.demo.request import Trip


@dataclass(frozen=True, slots=True)
class Findings:
    """What the tools answered for one destination; ``None`` where a tool was not there or failed."""

    forecast: str | None = None
    events: str | None = None


@dataclass(frozen=True, slots=True)
class _Day:
    number: int
    destination: str
    #: From 0, at this destination.
    index: int
    #: How many days the trip spends there.
    stay: int

    @property
    def is_arrival(self) -> bool:
        return self.index == 0


def compose_reasoning(trip: Trip) -> str:
    """One sentence on how the itinerary is about to be laid out."""
    return (
        f"The traveller wants {_count(trip.days, 'day')} in {_listed(trip.destinations)} "
        f"({trip.date}); I'll match each day with the forecast and the local events."
    )


def compose_itinerary(trip: Trip, findings: Mapping[str, Findings]) -> str:
    """The day-by-day plan of a trip, in Markdown, with the tools' findings worked in.

    Args:
        trip: what to plan.
        findings: the tools' answers by destination; a destination without any is planned all the same.
    """
    days = _schedule(trip)
    sections = [_introduction(trip)]
    for destination in trip.destinations:
        found = findings.get(destination, Findings())
        sections.append(_overview(destination, found))
        events = _bullets(found.events)
        sections += [_day(day, events) for day in days if day.destination == destination]
    sections.append(_tips(trip, findings))
    return "\n\n".join(sections)


def _schedule(trip: Trip) -> list[_Day]:
    """Which day is spent where: as evenly as can be, with the days left over at the first destinations."""
    share, left_over = divmod(trip.days, len(trip.destinations))
    days: list[_Day] = []
    for position, destination in enumerate(trip.destinations):
        stay = share + (position < left_over)
        days += [_Day(len(days) + index + 1, destination, index, stay) for index in range(stay)]
    return days


def _introduction(trip: Trip) -> str:
    title = (
        f"# {place(trip.destinations[0]).emoji} {_count(trip.days, 'day')} in {_listed(trip.destinations)}"
    )
    if 0 < trip.planned_before < len(trip.destinations):
        before = _listed(trip.destinations[: trip.planned_before])
        added = _listed(trip.destinations[trip.planned_before :])
        return (
            f"{title}\n\nBuilding on your trip to {before}, here is the extended route: it now goes on to "
            f"{added}. 🌍 The days are shared out so that nothing feels rushed."
        )
    if trip.planned_before:
        return f"{title}\n\nHere is your updated plan, for {trip.date}. ✨"
    return (
        f"{title}\n\nHere is a day-by-day plan for {trip.date}, with time for the highlights, good food "
        "and a little getting lost. ✨"
    )


def _overview(destination: str, found: Findings) -> str:
    lines = [f"## {place(destination).emoji} {destination}: weather and events", ""]
    facts = [line for line in _facts(found.forecast) if not line.startswith("Source:")]
    if facts:
        lines.append("🌤️ **What the forecast says**")
        lines += [f"- {fact}" for fact in facts]
    else:
        lines.append("🌤️ No forecast was available, so pack for changeable weather.")
    lines.append("")
    events = _bullets(found.events)
    if events:
        lines.append("🎟️ **What is on**")
        lines += [f"- {event}" for event in events]
    else:
        lines.append("🎟️ No event listing was available; ask at the tourist office on arrival.")
    return "\n".join(lines)


def _day(day: _Day, events: Sequence[str]) -> str:
    here = place(day.destination)
    morning = _choice((*here.mornings, *_rest(here, ANYWHERE.mornings)), day.index)
    afternoon = _choice((*here.afternoons, *_rest(here, ANYWHERE.afternoons)), day.index)
    evening = _EVENINGS[(day.number - 1) % len(_EVENINGS)]
    event = events[day.index % len(events)] if events else "🎶 Ask your host what is on today"
    theme = _THEMES[day.index % len(_THEMES)]
    start = "10:30" if day.is_arrival else "09:00"
    first = "Arrive and drop your bags, then" if day.is_arrival else "Start with"
    return "\n".join(
        [
            f"### 📅 Day {day.number}: {day.destination}, {theme}",
            "",
            f"- **{start}** ☀️ {first} {morning}.",
            f"- **12:30** 🍽️ Lunch: {_choice(here.food, day.index)}. Reserve, or come before the rush.",
            f"- **14:30** 🚶 Afternoon at leisure: {afternoon}.",
            f"- **17:30** ☕ A break: {_BREAKS[day.number % len(_BREAKS)]}.",
            f"- **19:30** 🌙 Evening: dinner, then {evening}.",
            f"- **On the calendar:** {event}",
            "",
            f"💡 *Tip:* {_DAY_TIPS[(day.number - 1) % len(_DAY_TIPS)]}",
        ]
    )


def _tips(trip: Trip, findings: Mapping[str, Findings]) -> str:
    advice = list(_recommendations(trip, findings))
    if len(trip.destinations) > 1:
        advice.append(
            "🚆 Book the legs between the destinations early, and keep half a day for each of them."
        )
    lines = ["## 🎒 Practical tips", "", *(f"- {line}" for line in (*advice, *_GENERAL_TIPS)), ""]
    lines.append("---")
    lines.append("*Written by the offline demo model from demo data. Check before you book. Bon voyage! 👋*")
    return "\n".join(lines)


def _recommendations(trip: Trip, findings: Mapping[str, Findings]) -> Iterator[str]:
    for destination in trip.destinations:
        for fact in _facts(findings.get(destination, Findings()).forecast):
            label, _, text = fact.partition(": ")
            if label == "Recommendation":
                yield f"🌡️ {destination}: {text}"


def _facts(answer: str | None) -> list[str]:
    """The lines of a tool's answer after its heading; of an answer of one line, that line."""
    lines = [line.strip() for line in (answer or "").splitlines() if line.strip()]
    return lines[1:] or lines


def _bullets(answer: str | None) -> list[str]:
    """The items that a tool's answer lists."""
    marks = ("•", "-", "*")
    return [line.lstrip("•-* ") for line in _facts(answer) if line.startswith(marks)]


def _rest(here: Place, general: tuple[str, ...]) -> tuple[str, ...]:
    return () if here is ANYWHERE else general


def _choice(options: Sequence[str], index: int) -> str:
    return options[index % len(options)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them. Those with a comma in them get their country in brackets instead."""
    shown = [
        f"{city} ({country})" if country else city for city, _, country in (n.partition(", ") for n in names)
    ]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


_THEMES: Final = (
    "first impressions",
    "the classics",
    "hidden corners",
    "art and craft",
    "parks and water",
    "markets and flavours",
    "a slower day",
)
_BREAKS: Final = (
    "a café with a window seat",
    "a bench with a view and something sweet",
    "tea, and postcards to write",
    "back to the hotel for half an hour off your feet",
)
_EVENINGS: Final = (
    "a sunset stroll",
    "live music in a small bar",
    "the city lights from above",
    "ice cream on the liveliest square",
    "an early night",
)
_DAY_TIPS: Final = (
    "buy a transit day pass on arrival; it pays off from the third ride.",
    "the big sights are quietest in the first hour after opening.",
    "save an offline map before you set out, and mark your hotel on it.",
    "many museums open late one evening a week, with short queues.",
    "carry a refillable bottle and a little cash for small stalls.",
    "eat where the menu is short and the tables are full of locals.",
    "keep this evening open: the best finds are rarely planned.",
)
_GENERAL_TIPS: Final = (
    "🚇 Public transport beats taxis almost everywhere; pay contactless where you can.",
    "📱 Get a local eSIM, and download maps and a translator for offline use.",
    "🎫 Reserve timed tickets for the most popular sights a week ahead.",
    "💳 Tell your bank that you travel, and keep a second card apart from the first.",
    "🛂 Check entry rules and your passport's validity well before departure.",
)
