"""The offline demo model, driven through the real agents."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent_framework import (
    Agent,
    AgentResponseUpdate,
    AgentSession,
    ChatOptions,
    ChatResponse,
    Content,
    Message,
)

from agents import create_agents, create_callback_agent, create_travel_planner
from hosting.demo.model import DemoChatClient
from hosting.demo.request import MAX_DAYS, Trip, understand
from hosting.models import create_chat_client
from streaming.settings import DemoModelSettings
from tools import get_local_events, get_weather_forecast

TOKYO = "Plan a 3-day trip to Tokyo in April"


def demo_client() -> DemoChatClient:
    return DemoChatClient(words_per_second=0)


async def streamed(
    agent: Agent[ChatOptions[None]], message: str, *, session: AgentSession | None = None
) -> list[AgentResponseUpdate]:
    return [update async for update in agent.run(message, stream=True, session=session)]


def contents(updates: Sequence[AgentResponseUpdate], kind: str) -> list[Content]:
    return [content for update in updates for content in update.contents if content.type == kind]


def text(updates: Sequence[AgentResponseUpdate]) -> str:
    return "".join(content.text or "" for content in contents(updates, "text"))


async def test_a_plan_calls_the_tools_then_thinks_then_writes() -> None:
    """A plan comes as calls, usage, results, a thought, text and usage, in this order."""
    updates = await streamed(create_travel_planner(demo_client()), TOKYO)
    kinds = [content.type for update in updates for content in update.contents]
    assert list(dict.fromkeys(kinds)) == [
        "function_call",
        "usage",
        "function_result",
        "text_reasoning",
        "text",
    ]
    assert kinds[-1] == "usage"
    reasons = [update.finish_reason for update in updates if update.finish_reason]
    assert reasons == ["tool_calls", "stop"]
    assert all(update.created_at for update in updates if update.role == "assistant")


async def test_the_framework_really_executes_the_tools() -> None:
    """The results in the stream are what the tools answer to the calls' arguments."""
    updates = await streamed(create_travel_planner(demo_client()), TOKYO)
    calls = {call.call_id: call for call in contents(updates, "function_call")}
    results = {result.call_id: result.result for result in contents(updates, "function_result")}
    assert len(calls) == 2
    assert calls.keys() == results.keys()
    assert {call.name: results[call_id] for call_id, call in calls.items()} == {
        "get_weather_forecast": get_weather_forecast("Tokyo", "April"),
        "get_local_events": get_local_events("Tokyo", "April"),
    }


async def test_call_ids_are_unique_across_runs() -> None:
    """Two runs of the same request share no call id."""
    planner = create_travel_planner(demo_client())
    ids = [
        call.call_id
        for updates in (await streamed(planner, TOKYO), await streamed(planner, TOKYO))
        for call in contents(updates, "function_call")
    ]
    assert len(set(ids)) == len(ids) == 4


async def test_the_plan_is_built_from_the_tools_answers() -> None:
    """Every fact and event that the tools found is in the plan, beside headings, bullets and times."""
    plan = text(await streamed(create_travel_planner(demo_client()), TOKYO))
    found = get_weather_forecast("Tokyo", "April") + "\n" + get_local_events("Tokyo", "April")
    for line in found.splitlines():
        if not line.startswith(("Weather forecast", "Local events", "Source:")):
            assert line.removeprefix("• ") in plan
    assert plan.startswith("# 🗼 3 days in Tokyo\n")
    assert [f"Day {day}:" in plan for day in range(1, 5)] == [True, True, True, False]
    assert plan.count("\n## ") >= 2
    assert "\n- **09:00** " in plan
    assert "demo" in plan


async def test_chunks_are_words_that_concatenate_to_the_answer() -> None:
    """A plan is a few hundred chunks of one word each; together they are the final answer."""
    stream = create_travel_planner(demo_client()).run(TOKYO, stream=True)
    chunks = [content.text or "" async for update in stream for content in update.contents if content.text]
    chunks = chunks[1:]  # the thought
    assert 200 < len(chunks) < 1_000
    assert all(len(chunk.split()) == 1 for chunk in chunks)
    assert "".join(chunks) == (await stream.get_final_response()).text


async def test_usage_is_reported_once_per_model_call() -> None:
    """Both model calls report usage; the framework makes the last report the run's total."""
    updates = await streamed(create_travel_planner(demo_client()), TOKYO)
    usages = [content.usage_details or {} for content in contents(updates, "usage")]
    assert len(usages) == 2
    for usage in usages:
        read, written = usage.get("input_token_count"), usage.get("output_token_count")
        assert read
        assert written
        assert usage.get("total_token_count") == read + written
    calls, chunks = contents(updates, "function_call"), contents(updates, "text")
    assert usages[1].get("output_token_count") == len(calls) + len(chunks)


async def test_a_second_turn_builds_on_the_first_trip() -> None:
    """Asked for neighbouring countries, the tools are called for them too and the plan names all."""
    planner = create_travel_planner(demo_client())
    session = planner.create_session()
    await streamed(planner, TOKYO, session=session)
    updates = await streamed(planner, "Include neighbouring countries as well", session=session)
    asked = {
        str((call.parse_arguments() or {})["destination"]) for call in contents(updates, "function_call")
    }
    assert asked == {"Tokyo", "Seoul, South Korea", "Manila, Philippines"}
    plan = text(updates)
    assert "Building on your trip to Tokyo" in plan
    for name in ("Day 7: Manila", "Seoul (South Korea)", "🥟 Street food at Gwangjang Market"):
        assert name in plan


async def test_a_joke_between_two_turns_leaves_the_trip_alone() -> None:
    """A joke calls no tools, and the trip can still be changed after it."""
    planner = create_travel_planner(demo_client())
    session = planner.create_session()
    await streamed(planner, TOKYO, session=session)
    joke = await streamed(planner, "Tell me a short joke", session=session)
    assert not contents(joke, "function_call")
    assert "😄" in text(joke)
    assert "demo" in text(joke)
    longer = text(await streamed(planner, "make it 5 days", session=session))
    assert longer.startswith("# 🗼 5 days in Tokyo\n")


async def test_without_a_destination_it_asks_for_one() -> None:
    """A trip to nowhere in particular gets a question, and no tool is called."""
    updates = await streamed(create_travel_planner(demo_client()), "Plan me a nice vacation")
    assert not contents(updates, "function_call")
    assert "Where would you like to go?" in text(updates)


async def test_an_agent_without_tools_still_gets_a_plan() -> None:
    """Where no tools are offered, none is called, and the plan says what it lacks."""
    updates = await streamed(create_callback_agent(demo_client()), TOKYO)
    assert not contents(updates, "function_call")
    assert "No forecast was available" in text(updates)


@pytest.mark.parametrize(
    "options", [{"tool_choice": "none"}, {"tool_choice": {"mode": "none"}}, {"tools": None}]
)
async def test_disabled_tools_are_not_called(options: dict[str, object]) -> None:
    """Tools that are offered but switched off, or not offered at all, are left alone."""
    offered: dict[str, object] = {"tools": [get_weather_forecast, get_local_events], **options}
    response = await demo_client().get_response([Message("user", [TOKYO])], options=ChatOptions(**offered))  # type: ignore[typeddict-item]  # odd options are the point
    assert {content.type for content in response.messages[0].contents} == {"text_reasoning", "text"}


async def test_a_failing_tool_does_not_end_the_plan() -> None:
    """A tool that raises is told of in the plan; its error and its text are not."""

    def get_weather_forecast(destination: str, date: str) -> str:
        raise RuntimeError(f"no forecast for {destination} on {date}")

    planner = Agent(client=demo_client(), tools=[get_weather_forecast, get_local_events])
    updates = await streamed(planner, TOKYO)
    assert len(contents(updates, "function_call")) == 2
    plan = text(updates)
    assert "No forecast was available" in plan
    assert "no forecast for Tokyo" not in plan
    assert "teamLab" in plan


async def test_without_streaming_the_answer_is_the_same() -> None:
    """A response that is awaited has the text that streaming gives, and ends by ``stop``."""
    streamed_text = text(await streamed(create_callback_agent(demo_client()), TOKYO))
    response = await demo_client().get_response([Message("user", [TOKYO])])
    assert isinstance(response, ChatResponse)
    assert response.text == streamed_text
    assert response.finish_reason == "stop"


async def test_it_writes_at_the_pace_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between words it sleeps for a word's share of a second, and at pace 0 not at all."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    updates = await streamed(create_callback_agent(DemoChatClient(words_per_second=50)), "Tell me a joke")
    assert slept == [1 / 50] * len(contents(updates, "text"))
    slept.clear()
    await streamed(create_callback_agent(demo_client()), "Tell me a joke")
    assert slept == []


@pytest.mark.parametrize("pace", [-1.0, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused(pace: float) -> None:
    """A negative or infinite pace is an error that names the argument."""
    with pytest.raises(ValueError, match="words_per_second"):
        DemoChatClient(words_per_second=pace)


@pytest.mark.parametrize(
    ("message", "destinations", "days", "date"),
    [
        ("Plan a 3-day trip to Tokyo", ("Tokyo",), 3, "flexible dates"),
        ("plan a trip to ljubljana for a week in july", ("Ljubljana",), 7, "july"),
        ("Two weeks in Kyoto and Tokyo in April 2026", ("Kyoto", "Tokyo"), 14, "April 2026"),
        ("weekend in São Paulo", ("São Paulo",), 2, "flexible dates"),
        ("From London to Reykjavik, 4 nights", ("Reykjavik",), 5, "flexible dates"),
        ("東京に3日間旅行したい", ("Tokyo",), 3, "flexible dates"),
        ("30 days in Rome please", ("Rome",), MAX_DAYS, "flexible dates"),
        ("0 days in Rome", ("Rome",), 1, "flexible dates"),
        ("1 day in Ljubljana, Bled and Piran", ("Ljubljana", "Bled", "Piran"), 3, "flexible dates"),
        ("A trip to Rio de Janeiro! On 2026-05-02", ("Rio de Janeiro",), 3, "2026-05-02"),
        ("Plan a trip to Seoul, South Korea", ("Seoul",), 3, "flexible dates"),
        ("Visit France, Japan and Italy", ("France", "Japan", "Italy"), 3, "flexible dates"),
        ("A trip to Tokyo with details. Costs in USD.", ("Tokyo",), 3, "flexible dates"),
        ("Plan a trip in May to Rome", ("Rome",), 3, "May"),
        ("A trip to Paris, add Michelin stars", ("Paris",), 3, "flexible dates"),
    ],
)
def test_a_request_is_understood(message: str, destinations: tuple[str, ...], days: int, date: str) -> None:
    """Destinations, days (1 to 14) and dates are found in many ways of asking."""
    assert understand([message]) == Trip(destinations, days, date)


@pytest.mark.parametrize(
    ("messages", "destinations", "days"),
    [
        (["Trip to Paris", "add Lisbon as well"], ("Paris", "Lisbon"), 5),
        (["Trip to Oslo", "also Bergen"], ("Oslo", "Bergen"), 5),
        (["Trip to Paris", "include neighboring countries", "make it a week"], None, 7),
        (["Trip to Paris", "Now plan a trip to Rome"], ("Rome",), 3),
        (["14 days in Paris", "add Lisbon"], ("Paris", "Lisbon"), 14),
        (["Trip to Oslo", "in October instead"], ("Oslo",), 3),
    ],
)
def test_a_follow_up_is_understood(
    messages: list[str], destinations: tuple[str, ...] | None, days: int
) -> None:
    """A later message extends, changes or replaces the trip of the earlier ones."""
    trip = understand(messages)
    assert isinstance(trip, Trip)
    assert trip.days == days
    assert trip.destinations == (destinations or ("Paris", "Brussels, Belgium", "Geneva, Switzerland"))


@pytest.mark.parametrize("message", ["", "hello", "What is 2+2?", "\n", "🙂", "in " * 50_000, "A" * 100_000])
def test_any_other_message_gets_a_short_answer(message: str) -> None:
    """What is not about travel is answered, shortly, by a model that says it is a demo."""
    answer = understand([message])
    assert isinstance(answer, str)
    assert "demo model" in answer
    assert len(answer) < 500


def test_no_messages_are_answered_with_a_question() -> None:
    """A conversation without a user message gets a question for one."""
    assert "Where would you like to go?" in str(understand([]))


def test_unknown_neighbours_are_asked_for() -> None:
    """Where the demo's atlas ends, it says so and asks for the names."""
    assert "doesn't know the neighbours of Oslo" in str(
        understand(["Trip to Oslo", "and neighbouring places"])
    )


def test_the_settings_choose_the_demo_model() -> None:
    """Without a configured model, the agents run on the demo model: the planner streams, the other waits."""
    assert isinstance(create_chat_client(DemoModelSettings()), DemoChatClient)
    hosted = create_agents(DemoModelSettings())
    assert [(each.agent.name, each.waits_by_default) for each in hosted] == [
        ("TravelPlanner", False),
        ("CallbackAgent", True),
    ]


def test_the_demo_model_starts_without_the_vendors_libraries() -> None:
    """Agents on the demo model import neither OpenAI's library nor Azure's sign-in."""
    program = (
        "import sys\n"
        "from agents import create_agents\n"
        "from streaming.settings import DemoModelSettings\n"
        "create_agents(DemoModelSettings())\n"
        "sys.exit(' '.join({'openai', 'azure.identity'} & sys.modules.keys()) or 0)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stderr.strip() == ""
    assert finished.returncode == 0
