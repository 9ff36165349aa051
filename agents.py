"""The agents that this sample hosts: a travel planner that streams, and an assistant that is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agent_framework import Agent, SupportsChatGetResponse

from hosting.models import create_chat_client
from streaming.settings import ModelSettings
from tools import get_local_events, get_weather_forecast

TRAVEL_PLANNER_NAME: Final = "TravelPlanner"
CALLBACK_AGENT_NAME: Final = "CallbackAgent"

_TRAVEL_PLANNER_INSTRUCTIONS: Final = """\
You are an expert travel planner who writes detailed, personal itineraries.

When asked to plan a trip:
1. Call get_weather_forecast and get_local_events for each destination before you plan.
2. Write a day-by-day itinerary with specific places and times: morning, afternoon and evening.
3. Let the weather and the events decide what comes when, and give an indoor alternative where it may rain.
4. Name restaurants or dishes, and give practical tips: getting around, reservations, what to pack.

When the traveller asks for a change, build on the trip you have planned: keep what still fits, and give \
the whole updated itinerary.

Write in Markdown, with a heading for each day, bullet points, and emoji that make the plan pleasant to \
scan. Where a tool says that its data is demo data or a tool fails, say so in a short note. If no \
destination is given, ask for one."""

_CALLBACK_AGENT_INSTRUCTIONS: Final = """\
You are a friendly assistant. Answer concisely, in a few sentences at most, in the language of the \
question. Say so when you don't know."""


@dataclass(frozen=True, slots=True)
class HostedAgent:
    """An agent, and how its run route answers."""

    agent: Agent[Any]
    #: Whether a caller who doesn't say gets the answer itself, rather than where to follow it.
    waits_by_default: bool


def create_agents(model: ModelSettings) -> list[HostedAgent]:
    """Create every agent of this sample, on one chat client for the model that the settings name."""
    chat_client = create_chat_client(model)
    return [
        HostedAgent(create_travel_planner(chat_client), waits_by_default=False),
        HostedAgent(create_callback_agent(chat_client), waits_by_default=True),
    ]


def create_travel_planner(chat_client: SupportsChatGetResponse[Any]) -> Agent[Any]:
    """Create the agent that plans trips, with the weather and local events from its tools."""
    return Agent(
        client=chat_client,
        name=TRAVEL_PLANNER_NAME,
        description="Plans trips day by day, with the weather and local events in mind.",
        instructions=_TRAVEL_PLANNER_INSTRUCTIONS,
        tools=[get_weather_forecast, get_local_events],
    )


def create_callback_agent(chat_client: SupportsChatGetResponse[Any]) -> Agent[Any]:
    """Create the agent for short questions. It has no tools."""
    return Agent(
        client=chat_client,
        name=CALLBACK_AGENT_NAME,
        description="Answers short questions, concisely.",
        instructions=_CALLBACK_AGENT_INSTRUCTIONS,
    )
