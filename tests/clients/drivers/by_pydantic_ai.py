"""pydantic-ai with its chat model (its default would be /v1/responses)."""

from functools import cache

from asked import FUNCTIONS, KEY, MODEL, URL, City
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


@cache
def model(retries: int) -> OpenAIChatModel:
    client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=retries)
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))


async def text(prompt: str, retries: int) -> str:
    return (await Agent(model(retries)).run(prompt)).output


async def stream(prompt: str, retries: int) -> str:
    async with Agent(model(retries)).run_stream(prompt) as run:
        return "".join([piece async for piece in run.stream_text(delta=True, debounce_by=None)])


async def leave(prompt: str, retries: int) -> str:
    async with Agent(model(retries)).run_stream(prompt) as run:
        said = await anext(aiter(run.stream_text(delta=True, debounce_by=None)))
        # Without this it would read on to the end.
        await run.cancel()
        return said


async def tools(prompt: str, retries: int) -> str:
    return (await Agent(model(retries), tools=list(FUNCTIONS.values())).run(prompt)).output


async def stream_tools(prompt: str, retries: int) -> str:
    async with Agent(model(retries), tools=list(FUNCTIONS.values())).run_stream(prompt) as run:
        return await run.get_output()


async def structured(prompt: str, retries: int) -> str:
    return (await Agent(model(retries), output_type=City).run(prompt)).output.name
