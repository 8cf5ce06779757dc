"""A container that earns money: it says what it is given, louder. Listens on $PORT, else on 3000."""

import os

from aiohttp import web


async def shout(request: web.Request) -> web.Response:
    return web.json_response({"text": str((await request.json())["data"]["text"]).upper()})


app = web.Application()
app.router.add_post("/service_output", shout)
web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "3000")))
