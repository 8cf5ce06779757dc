// The front page's own script: streams an answer, copies snippets. `api.js` comes before it.
"use strict";

// -- the box -----------------------------------------------------------------------------------------------------

let running = null; // AbortController of the answer that streams now.
let job = ""; // Public id of the last job, for its receipt.
let clock = 0; // Timer that says how long the first word is waited for.

function say(text, bad) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", Boolean(bad));
}

function begin() {
  running = new AbortController();
  job = "";
  $("answer").textContent = "";
  $("thoughts-text").textContent = "";
  $("thoughts").hidden = true;
  $("thoughts").open = false;
  $("answer").classList.add("writing");
  $("answer-box").hidden = false;
  $("facts").hidden = true;
  $("receipt-text").hidden = true;
  $("receipt").setAttribute("aria-expanded", "false");
  $("send").disabled = true;
  $("stop").hidden = false;
  say("");
  const began = performance.now();
  const seconds = () => Math.round((performance.now() - began) / 1000);
  clock = setInterval(() => say(`${$("thoughts").hidden ? "Waiting for the first word" : "Thinking"}… ${seconds()} s`), 1000);
}

// Nobody waits any more: the first word is there, or the answer is over.
function arrived() {
  if (!clock) return;
  clearInterval(clock);
  clock = 0;
  say("");
  $("thoughts-title").textContent = "What it thought";
}

function end() {
  running = null;
  $("answer").classList.remove("writing");
  $("send").disabled = false;
  $("stop").hidden = true;
}

// What a model thinks before it answers has a place of its own, folded; servers call it by either name.
function think(delta) {
  const thought = delta?.reasoning_content ?? delta?.reasoning;
  if (typeof thought !== "string" || !thought) return;
  if ($("thoughts").hidden) $("thoughts-title").textContent = "Thinking…";
  $("thoughts").hidden = false;
  append($("thoughts-text"), thought);
}

function append(box, text) {
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.append(box.firstChild ? text : text.trimStart());
  if (follows) box.scrollTop = box.scrollHeight;
}

async function ask(key, signal) {
  const began = performance.now();
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    signal,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({
      model: $("model").value,
      messages: [{ role: "user", content: $("prompt").value }],
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw new Error(await words(response));
  job = response.headers.get("x-comptoir-job") ?? "";
  const seen = { first_ms: 0, usage: null, done: false };
  for await (const { data } of events(response.body)) {
    if (data === "[DONE]") {
      seen.done = true;
      break;
    }
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    seen.usage = event.usage ?? seen.usage;
    const delta = event.choices?.[0]?.delta;
    think(delta);
    if (delta?.content) {
      arrived();
      seen.first_ms ||= performance.now() - began;
      append($("answer"), delta.content);
    }
  }
  if (!seen.done) throw new Error("the answer was cut off");
  return seen;
}

// A job that was stopped is over a moment after its client has hung up.
async function settled(key) {
  let found = null;
  for (let tries = 0; tries < 20 && !found?.receipt; tries++) {
    if (tries) await new Promise((resolve) => setTimeout(resolve, 100));
    const response = await fetch(`/house/jobs/${job}`, { headers: { authorization: `Bearer ${key}` } });
    if (!response.ok) return null;
    found = await response.json();
  }
  return found;
}

// What the answer cost is settled on the server; it is asked for, not computed here.
async function settle(key, seen) {
  const facts = [];
  if (seen?.usage) facts.push(`${seen.usage.completion_tokens} tokens`);
  let receipt = false;
  if (job) {
    const found = await settled(key);
    if (found) {
      if (!seen?.usage) facts.push(`${found.completion_tokens} tokens`);
      facts.push(dollars(found.cost_uusd));
      if (found.host) facts.push(`by host_…${found.host.slice(-8)}`);
      receipt = Boolean(found.receipt);
    }
  }
  if (seen?.first_ms) facts.push(`first word after ${Math.round(seen.first_ms)} ms`);
  $("facts-text").textContent = facts.join(" · ") + (receipt ? " ·" : "");
  $("receipt").hidden = !receipt;
  $("facts").hidden = facts.length === 0;
}

async function submit(event) {
  event.preventDefault();
  if (running) return;
  const key = theKey();
  sessionStorage.setItem(KEY, key); // Also what a browser filled in.
  begin();
  let seen = null;
  try {
    seen = await ask(key, running.signal);
    arrived();
  } catch (error) {
    arrived();
    if (error.name === "AbortError") say("Stopped. What had arrived is paid for, no more.");
    else say(sentence(error.message), true);
  }
  end();
  try {
    await settle(key, seen);
  } catch {
    say("The answer is complete; what it cost could not be read.", true);
  }
}

async function showReceipt() {
  const box = $("receipt-text");
  if (box.hidden) {
    const response = await fetch(`/house/jobs/${job}/receipt`, { headers: { authorization: `Bearer ${theKey()}` } });
    if (!response.ok) return say(await words(response), true);
    const envelope = await response.json();
    const bytes = Uint8Array.from(atob(envelope.payload), (one) => one.charCodeAt(0));
    const statement = JSON.parse(new TextDecoder().decode(bytes));
    box.textContent = JSON.stringify({ statement, signatures: envelope.signatures }, null, 2);
  }
  box.hidden = !box.hidden;
  $("receipt").setAttribute("aria-expanded", String(!box.hidden));
}

// -- the live part -----------------------------------------------------------------------------------------------

// The models to choose from follow the table below; what is chosen stays chosen.
function refreshModels() {
  const choice = $("model");
  const names = [...document.querySelectorAll("#market [data-chat=yes]")].map((row) => row.dataset.model);
  if (names.join("\n") === [...choice.options].map((one) => one.value).join("\n")) return;
  const chosen = choice.value;
  choice.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
}

// The command that buys a run is there while there is a container; it names one that a job may begin with.
const PASTEABLE = /^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$/; // As the server has it: others choose these names.
function refreshRun() {
  const rows = [...document.querySelectorAll("#market [data-container]")];
  const names = rows.filter((row) => row.dataset.first === "yes").map((row) => row.dataset.container);
  $("run").hidden = rows.length === 0;
  const known = $("run-name").textContent;
  if (!names.includes(known)) $("run-name").textContent = names.find((name) => PASTEABLE.test(name)) ?? "CONTAINER";
}

function copy(button) {
  const text = button.closest("figure").querySelector("code").textContent;
  const select = () => getSelection().selectAllChildren(button.closest("figure").querySelector("code"));
  if (!navigator.clipboard) return select(); // Plain HTTP beyond this machine: browsers keep the clipboard to themselves.
  navigator.clipboard.writeText(text).then(() => {
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }, select);
}

function start() {
  rememberKey();
  $("ask").addEventListener("submit", submit);
  $("stop").addEventListener("click", () => running?.abort());
  $("receipt").addEventListener("click", showReceipt);
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", () => copy(button));
  document.body.addEventListener("htmx:afterSettle", refreshModels);
  document.body.addEventListener("htmx:afterSettle", refreshRun);
  // A page nobody looks at asks for nothing; neither does one whose table somebody is selecting from.
  document.body.addEventListener("htmx:beforeRequest", (event) => {
    const selection = getSelection();
    const selecting = !selection.isCollapsed && $("market")?.contains(selection.anchorNode);
    if (document.hidden || selecting) event.preventDefault();
  });
}

start();
