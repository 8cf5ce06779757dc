"""instructor, which makes every answer an object: with a tool, with a schema, and a partial one from a stream."""

import instructor
from asked import KEY, MODEL, URL, City, question
from openai import OpenAI


def client(retries: int, mode: instructor.Mode = instructor.Mode.TOOLS) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=URL, api_key=KEY, max_retries=retries), mode=mode)


def structured(prompt: str, retries: int) -> str:
    return client(retries).create(model=MODEL, messages=question(prompt), response_model=City, max_retries=0).name


def structured_by_schema(prompt: str, retries: int) -> str:
    made = client(retries, instructor.Mode.JSON_SCHEMA)
    return made.create(model=MODEL, messages=question(prompt), response_model=City, max_retries=0).name


def stream_structured(prompt: str, retries: int) -> str:
    *_, last = client(retries).create_partial(model=MODEL, messages=question(prompt), response_model=City)
    return last.name
