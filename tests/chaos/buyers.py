"""The buyers: they play the orders of a plan as real clients do, each in its way and with its habit, and note what they
saw."""

import asyncio
import json
import random
from collections import deque
from typing import Any

import aiohttp
import msgspec

from tests.chaos.chains import containers_of, infernet_id, public_id
from tests.chaos.engine import MODEL, prompt_of
from tests.chaos.plan import Deposit, Order, Plan
from tests.chaos.wire import GONE, Asking, Choose, Event, Patience, Piece, Seen, events, parse_id, pause

CLIENTS = 32
"""Orders that are played at once."""

REQUEST_S_MAX = 25.0
"""Longest silence of one connection before its client tries another: a paused coordinator says nothing at all."""

RESTARTED = "answer_restarted"
"""What a reader is told of an answer that began anew before what it has read."""

FINAL = ("completed", "failed", "cancelled")
"""The words of Infrintia for final states."""


class Buyers:
    """Plays a plan's orders and deposits, *CLIENTS* at once."""

    def __init__(self, plan: Plan, choose: Choose, *, keys: list[str], names: list[str], admin_key: str) -> None:
        self.seen: list[Seen] = []
        self.deposited: dict[int, bool] = {}
        """Of each deposit, whether its operator was told that it is there."""
        self.begun = 0
        self._plan = plan
        self._choose = choose
        self._keys = keys
        self._names = names
        self._admin_key = admin_key
        self._orders = deque(plan.orders)
        self._deposits = deque(plan.deposits)
        self._progress = asyncio.Condition()

    async def until_begun(self, count: int) -> None:
        """Wait until *count* orders have begun."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.begun >= count)

    def close(self) -> None:
        """Begin no further order."""
        self._orders.clear()
        self._deposits.clear()

    async def play(self) -> None:
        """Play everything to its end."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=REQUEST_S_MAX)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client(session))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while self._orders:
            order = self._orders.popleft()
            async with self._progress:
                self.begun += 1
                self._progress.notify_all()
            if self._deposits and order.number % 20 == 0:
                await self._deposit(session, self._deposits.popleft())
            seen = Seen(order.number)
            self.seen.append(seen)
            asking = Asking(session, self._choose, key=self._keys[order.buyer], dice=random.Random(order.dice))
            try:
                await Client(order, seen, asking, prefix=self._plan.prefix).play()
            except Patience as patience:
                seen.problems.append(f"waited in vain: {patience}")

    async def _deposit(self, session: aiohttp.ClientSession, deposit: Deposit) -> None:
        self.deposited[deposit.number] = False
        asking = Asking(session, self._choose, key=self._admin_key, dice=random.Random(deposit.number))
        body = {"credits": f"{deposit.amount_uusd / 10_000:.4f}", "owner": self._names[deposit.buyer]}
        key = f"{self._plan.prefix}-deposit-{deposit.number}"
        await asking.until("POST", "/house/deposit", good=(201,), body=body, idempotency_key=key)
        self.deposited[deposit.number] = True


class Client:
    """The client of one order."""

    def __init__(self, order: Order, seen: Seen, asking: Asking, *, prefix: str) -> None:
        self._order = order
        self._seen = seen
        self._asking = asking
        self._key = {"idempotency_key": f"{prefix}-{order.number}"} if order.keyed else {}

    async def play(self) -> None:
        """Buy, and behave as the habit has it."""
        order = self._order
        if order.way == "detached":
            await self._detached()
        elif order.way == "chain":
            await self._chain()
        elif order.way.startswith("streamed"):
            await self._streamed()
        else:
            await self._whole()

    # -- Infrintia -------------------------------------------------------------------------------------------------

    async def _detached(self) -> None:
        order, seen = self._order, self._seen
        body = {"model": MODEL, "input_text": prompt_of(order.wanted), "max_tokens": order.max_tokens}
        accepted = await self._post("/run/model", body, wanted=202)
        if accepted is None:
            return
        seen.accepted = True
        seen.is_job(str(accepted["job_id"]))
        if order.habit == "leaves":
            return
        if order.habit == "comes-late":
            await self._until_over()
            await self._follow(start=min(order.after, order.wanted.frames - 1))
            return
        if order.habit in ("cancels", "reconnects"):
            await self._follow(stop_after=order.after)
        if order.habit == "cancels":
            status, job = await self._asking.until("POST", f"/jobs/{seen.job}/cancel", good=(200, 409))
            seen.status = str(job["status"]) if status == 200 else ""
        await self._follow()
        await self._until_over()

    async def _until_over(self) -> None:
        """Ask for the job until it is over, and keep what is said of it."""
        seen, asking = self._seen, self._asking
        while True:
            status, job = await asking.until("GET", f"/jobs/{seen.job}", good=(200, 404))
            if status == 404:
                seen.problems.append(f"the accepted job {seen.job} is unknown")
                return
            if job["status"] in FINAL:
                break
            asking.check_patience(f"the end of {seen.job}, which is {job['status']}")
            await asyncio.sleep(0.2)
        if seen.status and seen.status != job["status"]:
            seen.problems.append(f"{seen.job} was {seen.status} and is {job['status']} now")
        seen.status, seen.told = str(job["status"]), job

    async def _follow(self, *, stop_after: int | None = None, start: int = 0) -> None:
        """Read the stream to its end, or until *stop_after* events were read in all, reconnecting wherever it
        breaks."""
        seen, asking = self._seen, self._asking
        if start and not seen.pieces:
            # Where a reader begins in the middle, what it says it has read before was never shown to it.
            seen.pieces.append(Piece(0, start - 1, ""))
        while not (seen.ended or seen.error):
            if stop_after is not None and len(seen.pieces) >= stop_after:
                return
            asking.check_patience(f"the stream of {seen.job} after {len(seen.pieces)} events")
            last = seen.pieces[-1] if seen.pieces else None
            shown = "" if last is None else str(last.number) if not last.epoch else f"{last.epoch}.{last.number}"
            headers = {"last_event_id": shown} if shown else {}
            try:
                async with asking.open("GET", f"/jobs/{seen.job}/stream", **headers) as answer:
                    seen.connections += 1
                    if answer.status == 404:
                        seen.problems.append(f"the accepted job {seen.job} has no stream")
                        return
                    if answer.status == 200:
                        await self._read(answer, stop_after)
            except GONE:
                pass
            await pause(asking.dice)

    def _still_patient(self) -> None:
        self._asking.check_patience(f"the end of a stream of {self._seen.job} that only pings")

    async def _read(self, answer: aiohttp.ClientResponse, stop_after: int | None) -> None:
        seen = self._seen
        async for event in events(answer, self._still_patient):
            if event.data == "[DONE]":
                seen.ended = not seen.error
                return
            if event.name == "error":
                code = str(json.loads(event.data)["error"]["code"])
                if code == RESTARTED:
                    # Said instead of another answer's second half: what was read is thrown away, and all is read again.
                    seen.restarts += 1
                    seen.pieces.clear()
                    return
                seen.error = code
                continue
            self._take(event)
            if stop_after is not None and len(seen.pieces) >= stop_after:
                return

    def _take(self, event: Event) -> None:
        seen = self._seen
        epoch, number = parse_id(event.id)
        last = seen.pieces[-1] if seen.pieces else Piece(epoch, -1, "")
        if epoch < last.epoch:
            seen.problems.append(f"event {event.id} came after {last.epoch}.{last.number}")
        elif number <= last.number:  # Frames without text have no event; the model looks into gaps.
            seen.problems.append(f"event {event.id} came after {last.number}")
        seen.pieces.append(Piece(epoch, number, json.loads(event.data)["token"]))

    # -- Infernet --------------------------------------------------------------------------------------------------

    async def _chain(self) -> None:
        order, seen, asking = self._order, self._seen, self._asking
        names = containers_of(order.dice)
        body = {"containers": names, "data": {"tag": order.wanted.tag}}
        accepted = await self._post("/infernet/api/jobs", body, wanted=200)
        if accepted is None:
            return
        seen.accepted = True
        seen.is_job(public_id(str(accepted["id"])))
        while order.habit != "leaves":
            _, found = await asking.until("GET", f"/infernet/api/jobs?id={infernet_id(seen.job)}", good=(200,))
            if not found:
                seen.problems.append(f"the accepted chain {seen.job} is unknown")
                return
            said: dict[str, Any] = msgspec.convert(found, list[dict[str, Any]])[0]
            if said["status"] != "running":
                seen.status = {"success": "completed"}.get(said["status"], "failed")
                if seen.status == "completed" and said["result"]["output"]["said"] != names:
                    seen.problems.append(f"{names} gave {said}")
                return
            asking.check_patience(f"the end of the chain {seen.job}")
            await asyncio.sleep(0.2)

    # -- OpenAI ----------------------------------------------------------------------------------------------------

    def _chat(self, *, stream: bool) -> dict[str, object]:
        message = {"role": "user", "content": prompt_of(self._order.wanted)}
        return {"model": MODEL, "messages": [message], "max_tokens": self._order.max_tokens, "stream": stream}

    async def _streamed(self) -> None:
        order, seen, asking = self._order, self._seen, self._asking
        stop_after = order.after if order.habit in ("hangs-up", "reconnects") else None
        while not (seen.ended or seen.error or seen.refusal):
            asking.check_patience(f"the streamed answer to {order.number}, job {seen.job}")
            try:
                async with asking.open(
                    "POST", "/v1/chat/completions", body=self._chat(stream=True), **self._key
                ) as answer:
                    if answer.status == 200:
                        seen.accepted = True
                        await self._read_chunks(answer, stop_after)
                    elif not await self._ask_again(answer):
                        return
                    if stop_after is not None and order.habit == "hangs-up":
                        return
            except GONE as gone:
                if not self._may_repeat(gone):
                    return
            stop_after = None
            await pause(asking.dice)

    async def _read_chunks(self, answer: aiohttp.ClientResponse, stop_after: int | None) -> None:
        seen = self._seen
        seen.is_job(answer.headers["x-comptoir-job"])
        seen.connections += 1
        seen.texts.append("")
        count = 0
        async for event in events(answer, self._still_patient):
            if event.data == "[DONE]":
                seen.ended = not seen.error
                return
            chunk = json.loads(event.data)
            if "error" in chunk:
                code = str(chunk["error"].get("code") or chunk["error"]["type"])
                if code == RESTARTED and self._order.keyed:
                    seen.restarts += 1
                    return
                seen.error = code
                continue
            for choice in chunk["choices"]:
                text = choice["delta"].get("content") or ""
                seen.texts[-1] += text
                count += bool(text)
            if stop_after is not None and count >= stop_after:
                return

    async def _whole(self) -> None:
        order, seen, asking = self._order, self._seen, self._asking
        while not (seen.ended or seen.error or seen.refusal):
            asking.check_patience(f"the whole answer to {order.number}, job {seen.job}")
            try:
                async with asyncio.timeout(order.after / 100 if order.habit == "hangs-up" else None):
                    async with asking.open(
                        "POST", "/v1/chat/completions", body=self._chat(stream=False), **self._key
                    ) as answer:
                        if answer.status == 200:
                            seen.accepted = True
                            seen.is_job(answer.headers["x-comptoir-job"])
                            seen.texts.append((await answer.json())["choices"][0]["message"]["content"])
                            seen.ended = True
                        elif not await self._ask_again(answer):
                            return
            except GONE as gone:
                if order.habit == "hangs-up" or not self._may_repeat(gone):
                    seen.unknown = True
                    return
            await pause(asking.dice)

    # -- asking again ----------------------------------------------------------------------------------------------

    def _may_repeat(self, gone: Exception) -> bool:
        """Whether a request that got no answer may be sent again: under a key always, else if it was never sent."""
        if self._order.keyed or isinstance(gone, aiohttp.ClientConnectorError):
            return True
        self._seen.unknown = True
        return False

    async def _ask_again(self, answer: aiohttp.ClientResponse) -> bool:
        """Whether a request that was answered with an error is worth repeating; else note what it ended with."""
        seen = self._seen
        job = answer.headers.get("x-comptoir-job")
        if job:
            # It was taken, and this is how it ended.
            seen.accepted = True
            seen.is_job(job)
            detail = json.loads(await answer.text())["error"]
            seen.error = str(detail.get("code") or detail["type"])
            return False
        if answer.status in (429, 503) and self._order.keyed:
            return True
        seen.refusal = answer.status
        return False

    async def _post(self, path: str, body: object, *, wanted: int) -> dict[str, object] | None:
        """Post until there is a definite answer; None: it was refused, or nobody knows."""
        seen, asking = self._seen, self._asking
        while True:
            asking.check_patience(f"POST {path} for {self._order.number}")
            try:
                async with asking.open("POST", path, body=body, **self._key) as answer:
                    if answer.status == wanted:
                        found: dict[str, object] = await answer.json()
                        return found
                    if not (answer.status in (429, 503) and self._order.keyed):
                        seen.refusal = answer.status
                        return None
            except GONE as gone:
                if not self._may_repeat(gone):
                    return None
            await pause(asking.dice)
