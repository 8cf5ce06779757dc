"""The litellm library, to which an OpenAI-compatible server is ``openai/MODEL``."""

import litellm
from asked import KEY, MODEL, TOOLS, URL, City, answered, question


def ask(messages, retries: int, **more):
    return litellm.completion(
        model=f"openai/{MODEL}", api_base=URL, api_key=KEY, messages=messages, max_retries=retries, **more
    )


def text(prompt: str, retries: int) -> str | None:
    return ask(question(prompt), retries).choices[0].message.content


def stream(prompt: str, retries: int) -> str:
    chunks = ask(question(prompt), retries, stream=True, stream_options={"include_usage": True})
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def tools(prompt: str, retries: int) -> str | None:
    return answered(prompt, lambda messages: ask(messages, retries, tools=TOOLS).choices[0].message)


def stream_tools(prompt: str, retries: int) -> str | None:
    def whole(messages):
        chunks = list(ask(messages, retries, tools=TOOLS, stream=True))
        return litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message

    return answered(prompt, whole)


def structured(prompt: str, retries: int) -> str:
    made = ask(question(prompt), retries, response_format=City)
    return City.model_validate_json(made.choices[0].message.content).name
