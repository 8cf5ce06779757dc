"""Simon Willison's llm, by its Python API; its command is in docs/clients.md."""

from functools import cache

import llm
from asked import FUNCTIONS, KEY, MODEL, URL, City
from llm.default_plugins.openai_models import Chat


class Patient(Chat):
    """Retries as often as it is told; llm leaves that to OpenAI's library, which does so twice. It has one client."""

    retries = 2
    client = None

    def get_client(self, *arguments, **named):
        self.client = self.client or super().get_client(*arguments, **named).with_options(max_retries=self.retries)
        return self.client


@cache
def model(retries: int) -> Chat:
    made = Patient(MODEL, model_name=MODEL, api_base=URL, supports_tools=True, supports_schema=True)
    made.key, made.retries = KEY, retries
    return made


def text(prompt: str, retries: int) -> str:
    return model(retries).prompt(prompt, stream=False).text()


def stream(prompt: str, retries: int) -> str:
    return "".join(model(retries).prompt(prompt, stream=True))


def tools(prompt: str, retries: int) -> str:
    offered = [llm.Tool.function(function) for function in FUNCTIONS.values()]
    return model(retries).chain(prompt, tools=offered, stream=False).text()


def stream_tools(prompt: str, retries: int) -> str:
    offered = [llm.Tool.function(function) for function in FUNCTIONS.values()]
    return "".join(model(retries).chain(prompt, tools=offered, stream=True))


def structured(prompt: str, retries: int) -> str:
    return City.model_validate_json(model(retries).prompt(prompt, schema=City, stream=False).text()).name
