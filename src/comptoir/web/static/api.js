// What both pages do the same way: the key, calls, streams, amounts. No library, nothing inline.
"use strict";

const KEY = "comptoir-key"; // In sessionStorage: gone with the tab, never sent anywhere but here.
const $ = (id) => document.getElementById(id);

// Fills the key's field with what this tab knows, and remembers what is typed into it.
function rememberKey() {
  $("key").value = sessionStorage.getItem(KEY) ?? "";
  $("key").addEventListener("change", () => sessionStorage.setItem(KEY, theKey()));
}

function theKey() {
  return $("key").value.trim();
}

async function words(response) {
  try {
    const body = await response.json();
    const error = body.error ?? body.detail;
    return typeof error === "string" ? error : error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

// Calls the server with the key; what it refuses is an Error in its own words, with the status.
async function call(path, { body, ...init } = {}) {
  const headers = { authorization: `Bearer ${theKey()}`, ...init.headers };
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, { ...init, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!response.ok) throw Object.assign(new Error(await words(response)), { status: response.status });
  return response;
}

// Gives each server-sent event; one ends with an empty line, wherever the network cuts it.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let cut;
    while ((cut = rest.indexOf("\n\n")) >= 0) {
      const fields = { event: "", data: [] };
      for (const line of rest.slice(0, cut).split("\n")) {
        if (line.startsWith("data:")) fields.data.push(line.slice(5).trimStart());
        else if (line.startsWith("event:")) fields.event = line.slice(6).trim();
        else if (line.startsWith("id:")) id = line.slice(3).trim();
      }
      rest = rest.slice(cut + 2);
      if (fields.data.length) yield { name: fields.event, data: fields.data.join("\n"), id };
    }
  }
}

function dollars(uusd) {
  const usd = uusd / 1e6;
  return usd === 0 ? "free" : `$${usd.toFixed(usd < 0.01 ? 6 : 4).replace(/0+$/, "").replace(/\.$/, "")}`;
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
