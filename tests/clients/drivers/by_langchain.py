"""LangChain's ChatOpenAI."""

from asked import FUNCTIONS, KEY, MODEL, TOOLS, URL, City
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


def model(retries: int) -> ChatOpenAI:
    return ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, max_retries=retries)


def text(prompt: str, retries: int) -> str:
    return model(retries).invoke(prompt).content


def stream(prompt: str, retries: int) -> str:
    return "".join(chunk.content for chunk in model(retries).stream(prompt))


def leave(prompt: str, retries: int) -> str:
    chunks = model(retries).stream(prompt)
    said = next(chunk.content for chunk in chunks if chunk.content)
    chunks.close()
    return said


def _answered(prompt: str, ask) -> str:
    messages = [HumanMessage(prompt)]
    while (message := ask(messages)).tool_calls:
        messages.append(message)
        messages += [
            ToolMessage(FUNCTIONS[one["name"]](**one["args"]), tool_call_id=one["id"]) for one in message.tool_calls
        ]
    return message.content


def tools(prompt: str, retries: int) -> str:
    return _answered(prompt, model(retries).bind_tools(TOOLS).invoke)


def stream_tools(prompt: str, retries: int) -> str:
    bound = model(retries).bind_tools(TOOLS)
    return _answered(prompt, lambda messages: sum(bound.stream(messages), AIMessageChunk(content="")))


def structured(prompt: str, retries: int) -> str:
    return model(retries).with_structured_output(City).invoke(prompt).name
