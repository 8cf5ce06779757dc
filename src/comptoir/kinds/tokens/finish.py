"""Why an answer ended, in OpenAI's words: its typed clients take no others, and engines have their own."""

from collections.abc import Mapping

FINISH_REASONS: Mapping[str, str] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_token": "stop",
    "stop_sequence": "stop",
    "stop_str": "stop",
    "end_turn": "stop",
    "complete": "stop",
    "length": "length",
    "max_length": "length",
    "max_tokens": "length",
    "max_new_tokens": "length",
    "max_output_tokens": "length",
    "length_capped": "length",
    "model_length": "length",
    "context_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "function_call",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "sensitive": "content_filter",
    "guardrail_intervened": "content_filter",
}
"""OpenAI's word for each that engines are known to use (in lower case): vLLM, SGLang, TGI, llama.cpp, TensorRT-LLM,
Mistral, Cohere, Anthropic, Gemini, Zhipu, Together."""

BROKEN_OFF = frozenset(
    (
        "abort", "aborted", "cancel", "cancelled", "canceled", "error", "failed", "timeout", "network_error",
        "malformed_function_call", "insufficient_system_resource", "preempted", "shutdown",
    )
)  # fmt: skip
"""Words with which engines say that they gave up: such an answer is not whole, however much of it came."""


def broke_off(reason: str) -> bool:
    """Tell whether an engine's *reason* means that it did not end the answer, but gave up."""
    return reason.lower() in BROKEN_OFF


def finish_reason_of(reason: str, *, called: bool = False) -> str:
    """Return OpenAI's word for an engine's *reason*, of an answer that ended by itself.

    Args:
        called: whether the answer has tool calls. An engine that has no word for that calls its end by another.
    """
    word = FINISH_REASONS.get(reason) or FINISH_REASONS.get(reason.lower(), "stop")
    return "tool_calls" if called and word == "stop" and reason != "stop" else word
