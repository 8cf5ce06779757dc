"""OpenAI's Python library: plain calls, streams, the tool loop by hand, ``parse`` and the stream helper."""

from functools import cache

from asked import KEY, MODEL, TOOLS, URL, City, answered, question
from openai import OpenAI


@cache
def client(retries: int) -> OpenAI:
    return OpenAI(base_url=URL, api_key=KEY, max_retries=retries)


def text(prompt: str, retries: int) -> str | None:
    made = client(retries).chat.completions.create(model=MODEL, messages=question(prompt))
    return made.choices[0].message.content


def stream(prompt: str, retries: int) -> str:
    chunks = client(retries).chat.completions.create(
        model=MODEL, messages=question(prompt), stream=True, stream_options={"include_usage": True}
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def leave(prompt: str, retries: int) -> str:
    with client(retries).chat.completions.create(model=MODEL, messages=question(prompt), stream=True) as chunks:
        return next(text for chunk in chunks if (text := chunk.choices[0].delta.content))


def tools(prompt: str, retries: int) -> str | None:
    def ask(messages):
        made = client(retries).chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        return made.choices[0].message

    return answered(prompt, ask)


def stream_tools(prompt: str, retries: int) -> str | None:
    """With the helper, which puts the deltas together."""

    def ask(messages):
        with client(retries).chat.completions.stream(model=MODEL, messages=messages, tools=TOOLS) as events:
            return events.get_final_completion().choices[0].message

    return answered(prompt, ask)


def structured(prompt: str, retries: int) -> str:
    made = client(retries).chat.completions.parse(model=MODEL, messages=question(prompt), response_format=City)
    return made.choices[0].message.parsed.name
