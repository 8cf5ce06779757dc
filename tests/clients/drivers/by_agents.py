"""OpenAI's Agents SDK with its chat model (its default would be /v1/responses), and without its traces to OpenAI."""

from functools import cache

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from asked import FUNCTIONS, KEY, MODEL, URL, City
from openai import AsyncOpenAI

set_tracing_disabled(True)

TOOLS = [function_tool(function) for function in FUNCTIONS.values()]


@cache
def model(retries: int) -> OpenAIChatCompletionsModel:
    client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=retries)
    return OpenAIChatCompletionsModel(model=MODEL, openai_client=client)


async def _whole(prompt: str, retries: int, **more):
    return (await Runner.run(Agent(name="a", model=model(retries), **more), prompt)).final_output


async def _streamed(prompt: str, retries: int, **more) -> str:
    run = Runner.run_streamed(Agent(name="a", model=model(retries), **more), prompt)
    deltas = [
        event.data.delta
        async for event in run.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    return "".join(deltas)


async def text(prompt: str, retries: int) -> str:
    return await _whole(prompt, retries)


async def stream(prompt: str, retries: int) -> str:
    return await _streamed(prompt, retries)


async def leave(prompt: str, retries: int) -> str:
    run = Runner.run_streamed(Agent(name="a", model=model(retries)), prompt)
    said = ""
    async for event in run.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            said = said or event.data.delta
            run.cancel()
    return said


async def tools(prompt: str, retries: int) -> str:
    return await _whole(prompt, retries, tools=TOOLS)


async def stream_tools(prompt: str, retries: int) -> str:
    return await _streamed(prompt, retries, tools=TOOLS)


async def structured(prompt: str, retries: int) -> str:
    return (await _whole(prompt, retries, output_type=City)).name
