"""A request that does not fit the context of a model: the words for it, which are OpenAI's, since clients look for
them, and what of the request is too large."""

CONTEXT_EXCEEDED = "context_length_exceeded"
"""Code of the failure, as OpenAI's API calls it."""


def context_words(
    *, context_tokens: int, input_tokens: int, output_tokens: int, field: str, about: bool = False
) -> str:
    """Say how much was asked for and how much fits.

    Args:
        output_tokens: 0: none were asked for, or nobody knows how many.
        field: field of the request that holds the input.
        about: the input is estimated, and was not counted.
    """
    whose = field or "input"
    counted = f"about {input_tokens}" if about else str(input_tokens)
    beginning = f"This model's maximum context length is {context_tokens} tokens. However, "
    if not output_tokens or input_tokens >= context_tokens:
        return f"{beginning}your {whose} resulted in {counted} tokens. Please reduce the length of the {whose}."
    total = f"{'about ' if about else ''}{input_tokens + output_tokens}"
    split = f"{counted} in the {whose}, {output_tokens} in the completion"
    return f"{beginning}you requested {total} tokens ({split}). Please reduce the length of the {whose} or completion."
