"""The demo tools: a fixed table behind the sample's signatures."""

from __future__ import annotations

import inspect
import re

import pytest

from tools import get_local_events, get_weather_forecast

CITIES = (
    *("Tokyo", "Kyoto", "Paris", "London", "New York", "Rome"),
    *("Barcelona", "Lisbon", "Seoul", "Bangkok", "Sydney", "Reykjavik"),
)
ODD_DATES = ("", "   ", "someday", "2026-13-45", "99/99/9999", "next Monday", "🎄", "x" * 10_000, "a\nb")


def high_c(forecast: str) -> int:
    """The day's high in °C that a forecast names."""
    found = re.search(r"^High: (-?\d+)°C", forecast, re.MULTILINE)
    assert found, forecast
    return int(found[1])


@pytest.mark.parametrize("tool", [get_weather_forecast, get_local_events])
def test_the_parameters_are_the_published_ones(tool: object) -> None:
    """Both tools take ``destination`` and ``date``, each with a description for the model."""
    assert callable(tool)
    parameters = inspect.signature(tool, eval_str=True).parameters
    assert list(parameters) == ["destination", "date"]
    assert all(parameter.annotation.__metadata__[0] for parameter in parameters.values())
    assert "demo data" in (tool.__doc__ or "")


@pytest.mark.parametrize("city", CITIES)
def test_a_listed_city_has_its_own_seasons(city: str) -> None:
    """Each listed city has weather and events of its own, and they differ between January and July."""
    january = get_weather_forecast(destination=city, date="2026-01-10")
    july = get_weather_forecast(destination=city, date="2026-07-10")
    assert high_c(january) != high_c(july)
    assert get_local_events(city, "2026-01-10") != get_local_events(city, "2026-07-10")
    unlisted = get_local_events("Nowhereville", "2026-07-10")
    assert get_local_events(city, "2026-07-10").splitlines()[1:] != unlisted.splitlines()[1:]


def test_the_southern_hemisphere_has_summer_in_january() -> None:
    """Sydney is warmer in January than in July, and at Christmas than at Easter."""
    assert high_c(get_weather_forecast("Sydney", "January")) > high_c(get_weather_forecast("Sydney", "July"))
    assert high_c(get_weather_forecast("Sydney", "Christmas")) > high_c(
        get_weather_forecast("Sydney", "Easter")
    )


@pytest.mark.parametrize(
    "date",
    [
        "2026-07-15",
        "2026/7/1",
        "15.07.2026",
        "15/7/2026",
        "July 15",
        "15 jul 2026",
        "mid-July",
        "7月",
        "SUMMER",
    ],
)
def test_a_month_is_read_from_many_ways_of_writing_it(date: str) -> None:
    """July is July in ISO, European, worded and Japanese dates, and as the season it lies in."""
    july = high_c(get_weather_forecast("Paris", "2026-07-01"))
    assert high_c(get_weather_forecast("Paris", date)) == july


@pytest.mark.parametrize("month", ["December", "2026-01-15", "feb", "winter", "New Year"])
def test_winter_is_read_as_winter(month: str) -> None:
    """Dates in a northern winter get winter's weather."""
    assert high_c(get_weather_forecast("Reykjavik", month)) == 2


@pytest.mark.parametrize("word", ["marching", "mayor", "summertime", "decently", "12345-07-01"])
def test_a_word_that_only_begins_like_a_month_is_none(word: str) -> None:
    """Words that merely look like a month leave the season open, and the forecast says so."""
    assert "no month could be read" in get_weather_forecast("Paris", word)


@pytest.mark.parametrize("date", ODD_DATES)
def test_any_date_gets_an_answer(date: str) -> None:
    """A date that means nothing still gets a forecast and events, of a bounded length."""
    for tool in (get_weather_forecast, get_local_events):
        answer = tool("Paris", date)
        assert answer == tool("Paris", date)
        assert len(answer) < 1_000


@pytest.mark.parametrize("destination", ["Ljubljana", "", "🏝️", "x" * 10_000, "Rom\nHigh: 99°C"])
def test_any_destination_gets_an_answer(destination: str) -> None:
    """A place outside the table gets a plausible default, and can't forge lines of the answer."""
    forecast = get_weather_forecast(destination, "2026-07-01")
    assert 20 <= high_c(forecast) <= 32
    assert len([line for line in forecast.splitlines() if line.startswith("High:")]) == 1
    assert get_local_events(destination, "2026-07-01").count("•") >= 3


@pytest.mark.parametrize(
    ("written", "city"),
    [("Tokyo, Japan", "Tokyo"), ("NEW YORK city", "New York"), ("東京都", "Tokyo"), ("Japan", "Tokyo")],
)
def test_a_city_is_found_however_it_is_written(written: str, city: str) -> None:
    """Case, the country's name behind it, other scripts and the country alone find the city."""
    expected = get_local_events(city, "2026-07-01").splitlines()[1:]
    assert get_local_events(written, "2026-07-01").splitlines()[1:] == expected


def test_another_city_of_a_listed_country_is_not_mistaken_for_the_capital() -> None:
    """Osaka, Japan does not get Tokyo's events."""
    tokyo = get_local_events("Tokyo", "2026-07-01").splitlines()[1:]
    assert get_local_events("Osaka, Japan", "2026-07-01").splitlines()[1:] != tokyo


def test_the_answers_say_that_they_are_demo_data() -> None:
    """Nobody can take the table for a live service."""
    assert "demo data" in get_weather_forecast("Paris", "July")
    assert "demo data" in get_local_events("Paris", "July")
