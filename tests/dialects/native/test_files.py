"""Files over HTTP: in one request, in a form, by tus after any cut; parts of them; and nothing that runs in a page."""

import asyncio
import base64
import hashlib
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from comptoir.blobs import PART_BYTES
from comptoir.dispatch.files import Files
from comptoir.dispatch.onboard import add_user
from comptoir.gateway import Connections
from comptoir.kit.objects import StoreAway, StoreFull
from tests.post import Post, open_post

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
PIECE = "application/offset+octet-stream"


def sha(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Answered:
    """An answer, read whole."""

    def __init__(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = body

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The error's name."""
        code: str = self.json["error"]["code"]
        return code


class Client:
    """Who uploads, with a key."""

    def __init__(self, post: Post, session: aiohttp.ClientSession, key: str) -> None:
        self.post = post
        self.session = session
        self.key = key

    async def ask(self, method: str, path: str, data: Any = None, *, key: str | None = "", **headers: str) -> Answered:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {key or self.key}"
        url = self.post.url + path if path.startswith("/") else path
        skip = () if isinstance(data, aiohttp.FormData) else ("content-type",)
        data = io.BytesIO(data) if isinstance(data, bytes) and len(data) >= MIB else data
        async with self.session.request(method, url, data=data, headers=sent, skip_auto_headers=skip) as answer:
            return Answered(answer, await answer.read())

    async def upload(self, data: bytes, **said: str) -> Any:
        query = "&".join(f"{name}={value}" for name, value in said.items())
        answer = await self.ask("POST", f"/house/files?{query}", data)
        assert answer.status == 201, answer.body
        return answer.json

    async def begin(self, size: int, *, data: bytes | None = None, **metadata: str) -> Answered:
        """Begin an upload by tus."""
        said = ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in metadata.items())
        headers = {"tus_resumable": "1.0.0", "upload_length": str(size), "upload_metadata": said}
        if data is not None:
            headers["content_type"] = PIECE
        return await self.ask("POST", "/house/uploads", data, **headers)

    async def go_on(self, location: str, offset: int, data: Any) -> Answered:
        """Go on with an upload by tus."""
        headers = {"tus_resumable": "1.0.0", "upload_offset": str(offset), "content_type": PIECE}
        return await self.ask("PATCH", location, data, **headers)

    async def look(self, location: str) -> Answered:
        """Ask where an upload is."""
        return await self.ask("HEAD", location, tus_resumable="1.0.0")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    async with open_post(tmp_path_factory.mktemp("files"), file_bytes_max=40 * MIB) as opened:
        yield opened
        traffic = opened.core.state(Connections).traffic
        assert (traffic.uploads.held, traffic.bodies.held, traffic.readers.held) == (0, 0, 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def client(post: Post, session: aiohttp.ClientSession) -> Client:
    """A user of each test's own."""
    made = await add_user(post.core, username=f"u{id(session)}-{len(NAMES)}", email=None, password=None)
    NAMES.append(made.key)
    return Client(post, session, made.key)


NAMES: list[str] = []
"""Keys of the users so far, each of whom has a number."""


class TestUpload:
    async def test_what_is_uploaded_comes_back(self, client: Client) -> None:
        data = bytes(range(256)) * 40_000  # Two objects and a bit.

        made = await client.ask(
            "POST", f"/house/files?name=a%20b.bin&sha256={sha(data)}", data, content_type="audio/ogg"
        )
        read = await client.ask("GET", f"/house/files/{made.json['id']}")
        head = await client.ask("HEAD", f"/house/files/{made.json['id']}")
        listed = (await client.ask("GET", "/house/files")).json

        assert made.status == 201
        assert (
            made.json.items()
            >= {"name": "a b.bin", "media": "audio/ogg", "size": len(data), "sha256": sha(data)}.items()
        )
        assert (read.status, read.body) == (200, data)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(data)))
        assert head.headers["etag"] == read.headers["etag"] == f'"{sha(data)}"'
        assert listed["files"] == [made.json]
        assert (listed["bytes_used"], listed["files_used"]) == (len(data), 1)

    async def test_a_form_has_one_file(self, client: Client) -> None:
        data = b"x" * (5 * MIB)
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("note", "looked at by nobody")
        form.add_field("file", io.BytesIO(data), filename="é x.csv", content_type="text/csv")
        twice = aiohttp.FormData()
        for _ in range(2):
            twice.add_field("file", b"x", filename="a")
        none = aiohttp.FormData({"a": "b"})
        none.add_field("c", "d", content_type="text/plain")

        made = await client.ask("POST", "/house/files", form)
        refused = [await client.ask("POST", "/house/files", form) for form in (twice, none)]
        cut = await client.ask("POST", "/house/files", b"--x\r\n", content_type="multipart/form-data; boundary=x")
        bare = await client.ask("POST", "/house/files", b"--x--", content_type="multipart/form-data")

        assert made.json.items() >= {"media": "text/csv", "size": len(data), "sha256": sha(data)}.items()
        assert made.json["name"] == "é x.csv"
        assert [(one.status, one.code) for one in (*refused, cut, bare)] == [(422, "InvalidField")] * 4
        assert (await client.ask("GET", "/house/files")).json["files_used"] == 1

    async def test_a_length_that_is_not_known_is_found(self, client: Client) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(9):
                yield b"y" * MIB

        made = await client.ask("POST", "/house/files", pieces())

        assert made.json["sha256"] == sha(b"y" * (9 * MIB))

    async def test_what_is_wrong_is_refused_and_leaves_nothing(self, client: Client) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(41):
                yield b"y" * MIB

        refused = [
            await client.ask("POST", "/house/files?name=a/b", b"x"),
            await client.ask("POST", f"/house/files?sha256={'0' * 64}", b"x"),
            await client.ask("POST", "/house/files", b"x", content_encoding="gzip"),
            await client.ask("POST", "/house/files", b"x", content_type="no type at all"),
            await client.ask("POST", "/house/files", pieces()),
        ]

        assert [(one.status, one.code) for one in refused] == [
            (422, "InvalidField"),
            (422, "ChecksumMismatch"),
            (415, "UnsupportedEncoding"),
            (422, "InvalidField"),
            (413, "PayloadTooLarge"),
        ]
        listed = (await client.ask("GET", "/house/files")).json
        assert (listed["files_used"], listed["bytes_used"], listed["files"]) == (0, 0, [])

    async def test_a_repeat_under_one_key_is_one_file(self, client: Client) -> None:
        first = await client.ask("POST", "/house/files", b"once", idempotency_key="k1")
        repeat = await client.ask("POST", "/house/files", b"once", idempotency_key="k1")
        other = await client.ask("POST", "/house/files?name=other", b"once", idempotency_key="k1")
        await client.ask("DELETE", f"/house/files/{first.json['id']}")
        anew = await client.ask("POST", "/house/files", b"once", idempotency_key="k1")

        assert first.json == repeat.json
        assert (other.status, other.code) == (422, "IdempotencyMismatch")
        assert (anew.status, anew.json["id"]) == (201, first.json["id"])

    async def test_one_that_breaks_off_is_given_up(self, client: Client) -> None:
        """In one request nobody can go on with it."""
        reader, writer = await asyncio.open_connection(*client.post.url.removeprefix("http://").split(":"))
        head = f"POST /house/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.key}\r\ncontent-length: 100\r\n\r\n"
        head = head.replace("host: x", "host: localhost")
        writer.write(head.encode() + b"half")
        await self.until_used(client, 1)
        writer.transport.abort()

        await self.until_used(client, 0)
        assert reader is not None

    async def until_used(self, client: Client, files: int) -> None:
        async with asyncio.timeout(10):
            while (await client.ask("GET", "/house/files")).json["files_used"] != files:
                await asyncio.sleep(0.001)


class TestRead:
    @pytest.mark.parametrize(
        ("asked", "status", "found"),
        [
            ("bytes=0-3", 206, "bytes 0-3/10"),
            ("bytes=8-", 206, "bytes 8-9/10"),
            ("bytes=8-99", 206, "bytes 8-9/10"),
            ("bytes=-3", 206, "bytes 7-9/10"),
            ("bytes=-99", 206, "bytes 0-9/10"),
            ("bytes=9-9", 206, "bytes 9-9/10"),
            ("bytes=-0", 416, "bytes */10"),
            ("bytes=10-", 416, "bytes */10"),
            ("bytes=10-20", 416, "bytes */10"),
            ("bytes=3-2", 200, None),
            ("bytes=0-1,4-5", 200, None),
            ("bytes=-", 200, None),
            ("lines=0-1", 200, None),
            ("bytes=a-b", 200, None),
            ("bytes=9999999999999999999-", 200, None),
        ],
    )
    async def test_a_part_is_what_was_asked_for(
        self, client: Client, asked: str, status: int, found: str | None
    ) -> None:
        """Length, header and body agree, and 206 never has a last byte below its first (cases: ranges)."""
        data = b"0123456789"
        file = await client.upload(data)

        answer = await client.ask("GET", f"/house/files/{file['id']}", range=asked)

        assert (answer.status, answer.headers.get("content-range")) == (status, found)
        assert answer.headers["content-length"] == str(len(answer.body))
        if status == 206:
            assert found is not None
            first, last = map(int, found.removeprefix("bytes ").removesuffix("/10").split("-"))
            assert answer.body == data[first : last + 1]
        elif status == 200:
            assert answer.body == data

    async def test_of_an_empty_file_there_is_no_part(self, client: Client) -> None:
        file = await client.upload(b"")

        part = await client.ask("GET", f"/house/files/{file['id']}", range="bytes=0-")
        whole = await client.ask("GET", f"/house/files/{file['id']}")

        assert (part.status, part.headers["content-range"]) == (416, "bytes */0")
        assert (whole.status, whole.body, whole.headers["content-length"]) == (200, b"", "0")

    async def test_a_part_of_what_has_changed_is_the_whole(self, client: Client) -> None:
        file = await client.upload(b"0123456789")
        path, etag = f"/house/files/{file['id']}", f'"{file["sha256"]}"'

        same = await client.ask("GET", path, range="bytes=2-3", if_range=etag)
        other = await client.ask("GET", path, range="bytes=2-3", if_range='"other"')
        dated = await client.ask("GET", path, range="bytes=2-3", if_range="Tue, 01 Dec 2026 10:00:00 GMT")
        known = await client.ask("GET", path, if_none_match=f'W/"x", {etag}')

        assert [(one.status, one.body) for one in (same, other, dated, known)] == [
            (206, b"23"),
            (200, b"0123456789"),
            (200, b"0123456789"),
            (304, b""),
        ]

    @pytest.mark.parametrize("media", ["image/svg+xml", "text/html"])
    async def test_nothing_in_it_runs_in_the_page(self, client: Client, media: str) -> None:
        """The uploader's type is not believed, and a browser that opens it downloads it (cases: active content)."""
        made = await client.ask("POST", "/house/files?name=x.svg", b"<svg onload='alert(1)'/>", content_type=media)

        read = await client.ask("GET", f"/house/files/{made.json['id']}")

        assert read.headers["content-type"] == "application/octet-stream"
        assert read.headers["content-disposition"].startswith("attachment; ")
        assert read.headers["x-content-type-options"] == "nosniff"
        assert read.headers["content-security-policy"] == "sandbox; default-src 'none'"

    async def test_names_are_sent_as_they_are(self, client: Client) -> None:
        """A space, an accent and a quote: 500 while the header is made (cases: signed URLs and names)."""
        file = await client.upload(b"x", name="a%20%C3%A9%22%25.txt")

        read = await client.ask("GET", f"/house/files/{file['id']}")

        assert read.headers["content-disposition"] == (
            "attachment; filename=\"a ____.txt\"; filename*=UTF-8''a%20%C3%A9%22%25.txt"
        ).replace("____", "___")

    async def test_anothers_file_is_nowhere(self, client: Client) -> None:
        file = await client.upload(b"mine")
        path = f"/house/files/{file['id']}"

        stranger = client.post.buyer_key
        asked = [
            await client.ask(*what, key=stranger)
            for what in (("GET", path), ("HEAD", path), ("DELETE", path), ("POST", path + "/link", b"{}"))
        ]
        nobody = await client.ask("GET", path, key=None)

        assert [one.status for one in asked] == [404] * 4
        assert nobody.status == 401
        assert (await client.ask("DELETE", path)).status == 204
        assert (await client.ask("GET", path)).status == 404

    async def test_pages_go_on_where_the_last_ended(self, client: Client) -> None:
        made = [(await client.upload(b"%d" % number))["id"] for number in range(5)]

        first = (await client.ask("GET", "/house/files?limit=3")).json
        rest = (await client.ask("GET", f"/house/files?limit=3&before={first['next']}")).json

        assert [file["id"] for file in first["files"] + rest["files"]] == list(reversed(made))
        assert rest["next"] is None


class TestLink:
    async def test_anybody_reads_by_a_link_also_parts_and_the_head(self, client: Client) -> None:
        """HEAD and then a range of a signed GET were refused elsewhere (cases: signed URLs)."""
        file = await client.upload(b"0123456789")
        link = (await client.ask("POST", f"/house/files/{file['id']}/link", b'{"lasts_s": 60}')).json

        head = await client.ask("HEAD", link["url"], key=None)
        part = await client.ask("GET", link["url"], key=None, range="bytes=4-")
        forged = await client.ask("GET", link["url"].replace("until_ms=1", "until_ms=2"), key=None)

        assert (head.status, head.headers["content-length"]) == (200, "10")
        assert (part.status, part.body) == (206, b"456789")
        assert (forged.status, forged.code) == (403, "FileLinkRefused")

    async def test_another_coordinator_of_the_post_knows_it(self, client: Client) -> None:
        """The key is derived from the one that all of them sign with."""
        file = await client.upload(b"0123456789")
        link = (await client.ask("POST", f"/house/files/{file['id']}/link", b"{}")).json
        other = Files(client.post.core)

        until_ms, signature = (part.partition("=")[2] for part in link["url"].partition("?")[2].split("&"))

        other.blobs.check(bytes.fromhex(file["id"].removeprefix("file_")), until_ms=int(until_ms), signature=signature)


class TestTus:
    async def test_it_goes_on_after_a_cut_and_becomes_a_file(self, client: Client) -> None:
        data = bytes(range(256)) * 40_000
        begun = await client.begin(len(data), filename="a.bin", filetype="text/csv", sha256=sha(data))
        location = begun.headers["location"]

        first = await client.go_on(location, 0, data[: 5 * MIB])
        looked = await client.look(location)
        wrong = await client.go_on(location, 3, b"x")
        last = await client.go_on(location, 5 * MIB, data[5 * MIB :])
        file_id = last.headers["x-comptoir-file"]
        read = await client.ask("GET", f"/house/files/{file_id}")

        assert (begun.status, begun.headers["upload-offset"]) == (201, "0")
        assert (first.status, first.headers["upload-offset"]) == (204, str(5 * MIB))
        assert (looked.status, looked.headers["upload-offset"]) == (200, str(5 * MIB))
        assert (looked.headers["upload-length"], looked.headers["cache-control"]) == (str(len(data)), "no-store")
        assert (wrong.status, wrong.headers["upload-offset"]) == (409, str(5 * MIB))
        assert (last.status, last.headers["upload-offset"]) == (204, str(len(data)))
        assert read.body == data
        assert {one.headers["tus-resumable"] for one in (begun, first, looked, wrong, last)} == {"1.0.0"}

    async def test_a_lost_last_answer_is_asked_for_again(self, client: Client) -> None:
        """The last part is stored and its answer cut: 404 and endless retries elsewhere (cases: lost last answer)."""
        location = (await client.begin(4)).headers["location"]
        await client.go_on(location, 0, b"abcd")

        looked = await client.look(location)
        again = await client.go_on(location, 4, b"")
        more = await client.go_on(location, 4, b"")

        assert (looked.headers["upload-offset"], looked.headers["upload-length"]) == ("4", "4")
        assert [one.status for one in (again, more)] == [204, 204]
        assert again.headers["x-comptoir-file"] == looked.headers["x-comptoir-file"]

    async def test_no_bytes_are_complete_at_creation(self, client: Client) -> None:
        begun = await client.begin(0, filename="empty")

        read = await client.ask("GET", f"/house/files/{begun.headers['x-comptoir-file']}")

        assert (begun.headers["upload-offset"], read.status, read.body) == ("0", 200, b"")

    async def test_the_first_bytes_may_come_with_the_creation(self, client: Client) -> None:
        begun = await client.begin(8, data=b"abcd")
        last = await client.go_on(begun.headers["location"], 4, b"efgh")

        assert (begun.status, begun.headers["upload-offset"], last.headers["upload-offset"]) == (201, "4", "8")

    async def test_what_came_before_a_cut_is_kept(self, client: Client) -> None:
        """A connection that breaks in the middle of a part loses nothing of what has arrived."""
        size = PART_BYTES + 1000
        location = (await client.begin(size)).headers["location"]

        async def cut() -> AsyncIterator[bytes]:
            yield b"z" * (size - 1)
            raise ConnectionResetError

        with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
            await client.go_on(location, 0, cut())
        async with asyncio.timeout(10):
            while (at := (await client.look(location)).headers["upload-offset"]) != str(size - 1):
                await asyncio.sleep(0.001)
        last = await client.go_on(location, int(at), b"z")

        assert last.headers["upload-offset"] == str(size)

    async def test_of_two_at_the_same_place_one_is_refused(self, client: Client) -> None:
        location = (await client.begin(8)).headers["location"]

        both = await asyncio.gather(client.go_on(location, 0, b"aaaa"), client.go_on(location, 0, b"bbbb"))

        assert sorted(one.status for one in both) == [204, 409]
        assert {one.headers["upload-offset"] for one in both} == {"4"}

    async def test_one_that_is_given_up_is_gone(self, client: Client) -> None:
        location = (await client.begin(8, data=b"abcd")).headers["location"]

        gone = await client.ask("DELETE", location, tus_resumable="1.0.0")

        assert (gone.status, (await client.look(location)).status) == (204, 404)
        assert (await client.go_on(location, 4, b"efgh")).status == 404
        assert (await client.ask("GET", "/house/files")).json["files_used"] == 0

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"tus_resumable": "0.2.2"}, 412),
            ({}, 412),
            ({"tus_resumable": "1.0.0"}, 422),
            ({"tus_resumable": "1.0.0", "upload_length": "-1"}, 422),
            ({"tus_resumable": "1.0.0", "upload_length": "9" * 30}, 422),
            ({"tus_resumable": "1.0.0", "upload_length": str(41 * MIB)}, 413),
            ({"tus_resumable": "1.0.0", "upload_length": "1", "upload_metadata": "filename $$"}, 422),
            ({"tus_resumable": "1.0.0", "upload_length": "1", "upload_metadata": "sha256 eHg="}, 422),
        ],
    )
    async def test_what_is_wrong_is_said(self, client: Client, headers: Mapping[str, str], status: int) -> None:
        answer = await client.ask("POST", "/house/uploads", **headers)

        assert (answer.status, answer.headers["tus-resumable"]) == (status, "1.0.0")

    async def test_what_is_spoken_is_told(self, client: Client) -> None:
        told = await client.ask("OPTIONS", "/house/uploads", key=None)

        assert told.status == 204
        assert told.headers["tus-version"] == "1.0.0"
        assert told.headers["tus-extension"] == "creation,creation-with-upload,expiration,termination"


class TestStore:
    async def test_one_that_is_full_or_away_is_said(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        objects = client.post.core.state(Files).blobs._objects
        location = (await client.begin(8, data=b"abcd")).headers["location"]
        answers = []

        for error in (StoreFull(), StoreAway("write a file's bytes", "/secret/folder")):

            async def fails(path: str, data: bytes, *, error: Exception = error) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(objects, "put", fails)
                answers += [await client.go_on(location, 4, b"efgh"), await client.ask("POST", "/house/files", b"x")]
        last = await client.go_on(location, 4, b"efgh")

        assert [one.status for one in answers] == [507, 507, 503, 503]
        assert not any(b"secret" in one.body for one in answers)
        assert last.headers["upload-offset"] == "8"
        assert (await client.ask("GET", "/house/files")).json["files_used"] == 1

    async def test_a_read_that_can_not_begin_is_refused(self, client: Client) -> None:
        """Not 200 and then nothing."""
        file = await client.upload(b"gone")
        blobs = client.post.core.state(Files).blobs
        blob = await blobs.find(bytes.fromhex(file["id"].removeprefix("file_")))
        await blobs._objects.erase(blob.place.hex())

        read = await client.ask("GET", f"/house/files/{file['id']}")

        assert (read.status, read.code) == (503, "ObjectMissing")


class TestMemory:
    async def test_many_uploads_share_the_room(self, client: Client) -> None:
        """Twelve of 8 MiB at once from one address, which has room for four: the others wait, and all arrive."""
        budget = client.post.core.state(Connections).traffic.uploads
        data = b"m" * (8 * MIB)

        made = await asyncio.gather(*(client.ask("POST", "/house/files", data) for _ in range(12)))

        assert [one.status for one in made] == [201] * 12
        assert budget.held == 0
