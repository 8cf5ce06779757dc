"""What jobs ask for beyond text, and what offers say that they can do."""

import pytest

from comptoir.kinds import Kinds
from comptoir.kinds.capabilities import able, best_known, lacking, words
from comptoir.link import ModelOffer

TOOL = b'[{"type":"function","function":{"name":"f"}}]'
ASKED: list[tuple[bytes, set[str]]] = [
    (b'{"messages":[{"role":"user","content":"hi"}]}', set()),
    (b'{"messages":[],"tools":' + TOOL + b"}", {"tools"}),
    (b'{"messages":[],"tools":' + TOOL + b',"tool_choice":{"type":"function","function":{"name":"f"}}}', {"tools"}),
    (b'{"messages":[],"functions":[{"name":"f"}]}', {"tools"}),
    (b'{"messages":[],"tools":[]}', set()),
    (b'{"messages":[],"tools":null}', set()),
    (b'{"messages":[],"tools":' + TOOL + b',"tool_choice":"none"}', set()),
    (b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}', {"vision"}),
    (b'{"messages":[{"content":[{"type":"text","text":"hi"}]},{"content":null}]}', set()),
    (b'{"messages":[],"response_format":{"type":"json_schema","json_schema":{}}}', {"schema"}),
    (b'{"messages":[],"response_format":{"type":"json_object"}}', set()),
    (b'{"messages":[],"response_format":{"type":"text"}}', set()),
    (b'{"messages":[],"reasoning_effort":"low"}', {"reasoning"}),
    (b'{"messages":[],"reasoning_effort":"none"}', set()),
    (b'{"messages":[],"reasoning_effort":null}', set()),
    (b'{"messages":[],"reasoning":{"effort":"high"}}', {"reasoning"}),
    (b'{"messages":[],"reasoning":{"enabled":true}}', {"reasoning"}),
    (b'{"messages":[],"reasoning":{"enabled":false}}', set()),
    (b'{"messages":[{"content":[{"type":"image_url"}]}],"tools":' + TOOL + b"}", {"tools", "vision"}),
    (b'{"messages":[{"content":"say \\"tools\\" and \\"image_url\\""}]}', set()),
    (b'{"messages":[{"content":"x"}],"metadata":{"tools":"yes"}}', set()),
    (b'{"tools":7,"messages":"no list"}', set()),
    (b'{"tools":[1', set()),
    (b'\xff"tools"', set()),
]  # fmt: skip


class TestAsks:
    @pytest.mark.parametrize(("body", "asked"), ASKED)
    def test_a_chat_asks_for_what_its_fields_say(self, body: bytes, asked: set[str]) -> None:
        assert Kinds().get("chat").asks(body) == asked

    @pytest.mark.parametrize("kind", ["completion", "embedding", "container"])
    def test_other_kinds_ask_for_nothing(self, kind: str) -> None:
        assert Kinds().get(kind).asks(ASKED[1][0]) == set()

    def test_whatever_is_asked_for_has_a_field_that_asks(self) -> None:
        fields = Kinds().get("chat").capabilities

        assert {name for _, asked in ASKED for name in asked} == set(fields)


class TestSaid:
    SAID = {"tools": "probed", "vision": "lacking", "schema": "claimed", "reasoning": "hoped for"}

    def test_probed_and_claimed_is_able_and_what_is_unknown_is_neither(self) -> None:
        assert able(self.SAID) == {"tools", "schema"}
        assert lacking(self.SAID) == {"vision"}
        assert able({}) == lacking({}) == set()

    def test_what_is_merely_claimed_is_marked(self) -> None:
        assert words({"schema": "claimed", "tools": "probed", "vision": "lacking"}) == "tools, schema (claimed)"
        assert words({"vision": "lacking"}) == ""

    @pytest.mark.parametrize(
        ("offers", "known"),
        [
            ([{"tools": "claimed"}, {"tools": "probed"}, {}], {"tools": "probed"}),
            ([{"tools": "lacking"}, {"tools": "claimed"}], {"tools": "claimed"}),
            ([{"tools": "lacking"}, {"tools": "lacking"}], {"tools": "lacking"}),
            ([{"tools": "lacking"}, {}], {}),
            ([{}], {}),
            ([], {}),
        ],
    )
    def test_of_several_hosts_the_best_counts_and_all_have_to_lack_it(
        self, offers: list[dict[str, str]], known: dict[str, str]
    ) -> None:
        assert best_known(offers) == known


class TestKindsCapabilities:
    def test_what_the_kinds_do_not_have_is_dropped(self) -> None:
        """Anybody can register, with any words."""
        said = {"schema": "probed", "<b>best</b>": "probed", "tools": "very much", "vision": "lacking"}

        assert Kinds().capabilities(ModelOffer("m", ["chat"], capabilities=said)) == {
            "vision": "lacking",
            "schema": "probed",
        }
        assert Kinds().capabilities(ModelOffer("m", ["embedding"], capabilities=said)) == {}
        assert Kinds().capabilities(ModelOffer("m", ["unheard of"], capabilities=said)) == {}
