"""llama-index's OpenAILike."""

from asked import FUNCTIONS, KEY, MODEL, URL, City
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def model(retries: int) -> OpenAILike:
    return OpenAILike(
        api_base=URL,
        api_key=KEY,
        model=MODEL,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=retries,
        context_window=8192,
    )


def text(prompt: str, retries: int) -> str | None:
    return model(retries).chat([ChatMessage(prompt)]).message.content


def stream(prompt: str, retries: int) -> str:
    return "".join(piece.delta or "" for piece in model(retries).stream_chat([ChatMessage(prompt)]))


def _answered(prompt: str, ask, made: OpenAILike) -> str | None:
    messages = [ChatMessage(prompt)]
    while calls := made.get_tool_calls_from_response(reply := ask(messages), error_on_no_tool_call=False):
        messages.append(reply.message)
        messages += [
            ChatMessage(
                role="tool",
                content=FUNCTIONS[call.tool_name](**call.tool_kwargs),
                additional_kwargs={"tool_call_id": call.tool_id},
            )
            for call in calls
        ]
    return reply.message.content


OFFERED = [FunctionTool.from_defaults(function, name=name) for name, function in FUNCTIONS.items()]


def tools(prompt: str, retries: int) -> str | None:
    made = model(retries)
    ask = lambda messages: made.chat_with_tools(OFFERED, chat_history=messages, allow_parallel_tool_calls=True)  # noqa: E731
    return _answered(prompt, ask, made)


def stream_tools(prompt: str, retries: int) -> str | None:
    made = model(retries)

    def ask(messages):
        *_, last = made.stream_chat_with_tools(OFFERED, chat_history=messages, allow_parallel_tool_calls=True)
        return last

    return _answered(prompt, ask, made)


def structured(prompt: str, retries: int) -> str:
    return model(retries).structured_predict(City, PromptTemplate(prompt)).name
