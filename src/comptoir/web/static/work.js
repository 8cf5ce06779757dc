// The page of programs and jobs: uploads, orders, follows, plays what was made. `api.js` comes before it.
"use strict";

const LOG_CHARS_MAX = 200_000; // What the page shows of a log; older text gives way.
const FILES_SHOWN = 100; // Results and inputs that are listed.
const PLAYED_AT_ONCE = 6; // Results that are shown without being asked for.
const LOADED_AT_ONCE = 8 << 20; // Bytes of a sound or film that is loaded before anybody plays it.
const TEXT_BYTES_SHOWN = 4_096;
const HEAD_BYTES = 64;
const LINK_S = 6 * 3_600;
const AGAIN_MS = [200, 500, 1_000, 2_000, 5_000]; // Before a broken stream is read on; the last one repeats.

// A program that this page can order: its fields are in the form, this makes the order's body and names its files.
// What is *timed* costs by how long it runs.
const KINDS = {
  python: {
    timed: true,
    files: () => [...$("python-files").files],
    body: () => {
      const requirements = $("requirements").value.split(/[,\n]+/).map((one) => one.trim()).filter(Boolean);
      return { code: $("code").value, ...(requirements.length && { requirements }) };
    },
  },
  ffmpeg: {
    files: () => [...$("ffmpeg-file").files],
    needs: "Choose a film or a sound.",
    body: () => {
      const resolution = $("resolution").value.trim();
      return { output_format: $("format").value, ...(resolution && { resolution }) };
    },
  },
};

function make(tag, { text, ...fields } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function say(text, bad) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", Boolean(bad));
}

const bytes = (count) => `${count.toLocaleString("en")} bytes`;
function counted(unit) {
  const amount = unit.count / (unit.shown ?? 1);
  return `${amount.toLocaleString("en", { maximumFractionDigits: 2 })} ${amount === 1 ? unit.one : unit.many}`;
}

const short = (id) => `${id.split("_")[0]}_…${id.slice(-8)}`;

// -- ordering ----------------------------------------------------------------------------------------------------

async function listOffers() {
  const found = await (await fetch("/house/models")).json();
  const offers = found.others.filter((one) => one.kinds.some((kind) => KINDS[kind]));
  $("offer").replaceChildren(
    ...offers.map((one) => {
      const kind = one.kinds.find((each) => KINDS[each]);
      const option = new Option(one.name === kind ? kind : `${one.name} (${kind})`, one.name);
      option.dataset.kind = kind;
      return option;
    }),
  );
  $("no-offer").hidden = offers.length > 0;
  $("send").disabled = offers.length === 0;
  chooseKind();
}

const chosenKind = () => $("offer").selectedOptions[0]?.dataset.kind;

function chooseKind() {
  for (const fields of document.querySelectorAll("#order fieldset")) {
    fields.hidden = fields.dataset.kind !== chosenKind();
    fields.disabled = fields.hidden;
  }
}

// A request with a bar: fetch does not say how much of a body was sent.
function upload(file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/house/files?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("authorization", `Bearer ${theKey()}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => ($("sending-bar").value = event.total ? event.loaded / event.total : 0);
    request.onerror = () => reject(new Error(`the upload of ${file.name} broke off`));
    request.onload = () => {
      if (request.status < 300) return resolve(request.response);
      reject(new Error(request.response?.error?.message ?? `the server answered ${request.status}`));
    };
    $("sending-name").textContent = file.name;
    $("sending-bar").value = 0;
    request.send(file);
  });
}

async function order(event) {
  event.preventDefault();
  const name = chosenKind();
  const kind = KINDS[name];
  const files = kind.files();
  if (kind.needs && !files.length) return say(kind.needs, true);
  sessionStorage.setItem(KEY, theKey());
  $("send").disabled = true;
  say("");
  try {
    const inputs = [];
    $("sending").hidden = files.length === 0;
    for (const file of files) {
      const sent = await upload(file);
      inputs.push({ name: file.name, file: sent.id });
    }
    const body = { ...kind.body(), ...(inputs.length && { inputs }) };
    const bought = await call("/house/jobs", {
      method: "POST",
      headers: { "idempotency-key": crypto.getRandomValues(new Uint32Array(4)).join("-") },
      body: { kind: name, model: $("offer").value, body },
    });
    location.hash = (await bought.json()).id;
  } catch (error) {
    say(sentence(error.message), true);
  }
  $("sending").hidden = true;
  $("send").disabled = false;
}

// -- the list ----------------------------------------------------------------------------------------------------

let next = null; // Where the next page of jobs begins.

function row(job) {
  const opened = make("a", { text: short(job.id), href: `#${job.id}`, title: job.id });
  const cells = [
    ["What", `${job.model} (${job.kind})`],
    ["State", job.state],
    ["Made", job.units.map(counted).join(", "), "num"],
    ["Cost", job.receipt ? dollars(job.cost_uusd) : "—", "num"],
    ["When", new Date(job.created_ms).toLocaleString(), "num"],
  ];
  const made = make("tr", {}, make("th", { scope: "row" }, opened));
  for (const [label, text, kind] of cells) {
    const cell = make("td", { text, className: kind ?? "" });
    cell.dataset.label = label;
    made.append(cell);
  }
  made.dataset.job = job.id;
  return made;
}

async function listJobs(more) {
  if (!theKey()) return;
  try {
    const page = await (await call(`/house/jobs?limit=20${more && next ? `&before=${next}` : ""}`)).json();
    const rows = page.jobs.map(row);
    if (more) $("jobs").append(...rows);
    else if (rows.length) $("jobs").replaceChildren(...rows);
    else $("jobs").replaceChildren(make("tr", {}, make("td", { text: "You have no jobs yet.", className: "none", colSpan: 6 })));
    next = page.next;
    $("older").hidden = !next;
  } catch (error) {
    $("jobs").replaceChildren(make("tr", {}, make("td", { text: sentence(error.message), className: "none", colSpan: 6 })));
  }
}

// -- one job -----------------------------------------------------------------------------------------------------

let shown = null; // What the page follows now: {id, stop, …}, replaced whenever another job is opened.

function begin(id) {
  shown?.stop.abort();
  shown = { id, stop: new AbortController(), last: "", told: 0, played: 0, made: 0 };
  for (const one of ["job-wrong", "job-progress", "job-log", "job-result", "job-made", "job-took", "cancel", "receipt", "receipt-text"]) $(one).hidden = true;
  for (const one of ["job-log", "job-result", "artifacts", "inputs", "job-facts"]) $(one).replaceChildren();
  $("receipt").setAttribute("aria-expanded", "false");
  $("job-title").textContent = `Job ${short(id)}`;
  $("job").hidden = false;
  return shown;
}

// What was shown is no part of the answer: another host began from the start, or the whole stream began anew.
function beginAgain(why) {
  for (const one of ["job-log", "job-result", "artifacts"]) $(one).replaceChildren();
  for (const one of ["job-result", "job-made"]) $(one).hidden = true;
  Object.assign(shown, { told: 0, played: 0, made: 0, count: undefined });
  log(`${why}\n`, "note");
}

function log(text, className) {
  const box = $("job-log");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.hidden = false;
  box.append(className ? make("span", { text, className }) : text);
  shown.told += text.length;
  while (shown.told > LOG_CHARS_MAX && box.childNodes.length > 1) {
    shown.told -= box.firstChild.textContent.length;
    box.firstChild.remove();
  }
  if (follows) box.scrollTop = box.scrollHeight;
}

// About what a job has cost so far: what its former hosts were paid, and the open one's price for what it has made.
function spent(job) {
  const open = job.attempts.at(-1);
  if (!open?.prices.length) return undefined;
  const paid = job.attempts.reduce((sum, one) => sum + one.paid_uusd, 0);
  if (open.ended_ms !== null) return paid;
  const before = job.attempts.slice(0, -1).reduce((sum, one) => sum + one.units.at(-1).count, 0);
  const ran = KINDS[job.kind]?.timed ? Date.now() - open.started_ms : job.units.at(-1).count - before;
  return paid + ((shown.count ?? Math.max(ran, 0)) * open.prices.at(-1).uusd_per_million) / 1e6;
}

function facts(job) {
  const cost_uusd = spent(job);
  const said = [`${job.model} (${job.kind})`, job.state + (job.queue_position ? `, ${job.queue_position} before it` : "")];
  if (job.receipt) said.push(job.units.map(counted).join(", "), dollars(job.cost_uusd));
  else if (cost_uusd) said.push(`about ${dollars(cost_uusd)} of at most ${dollars(job.hold_uusd)}`);
  else said.push(`at most ${dollars(job.hold_uusd)}`);
  if (job.host) said.push(`at ${short(job.host)}`);
  $("job-facts").textContent = said.join(" · ");
  $("cancel").hidden = Boolean(job.receipt);
  $("receipt").hidden = !job.receipt;
  const wrong = job.error_message ?? (job.receipt && !["stop", null].includes(job.finish_reason) ? `it ended by ${job.finish_reason}` : "");
  if (wrong && $("job-wrong").hidden) fail(wrong); // The program's own words say more.
}

function fail(words) {
  $("job-wrong").textContent = sentence(words);
  $("job-wrong").hidden = false;
}

function take(frame) {
  const extra = frame.extra ?? {};
  if (extra.begun_again) beginAgain("Its host was lost: another one began again from the start, and you pay for that alone.");
  if (frame.text) log(frame.text, extra.stream === "stderr" ? "stderr" : "");
  if (extra.progress) progress(extra.progress);
  if (extra.artifact) artifact(extra.artifact);
  if (extra.failed) fail(extra.failed.message || `the program failed: ${extra.failed.reason}`);
  if ("result" in extra && extra.result !== null) {
    $("job-result").textContent = typeof extra.result === "string" ? extra.result : JSON.stringify(extra.result, null, 2);
    $("job-result").hidden = false;
  }
}

function progress({ done, note, count }) {
  shown.count = count;
  $("job-progress").hidden = false;
  if (done === undefined) $("job-bar").removeAttribute("value");
  else $("job-bar").value = done;
  $("job-note").textContent = [done === undefined ? "" : `${Math.round(done * 100)} %`, note ?? ""].filter(Boolean).join(" · ");
}

// Reads the job's frames, and on behind the last one where the connection broke; returns once it is over.
async function follow(job) {
  for (let tries = 0; ; ) {
    try {
      const headers = job.last ? { "last-event-id": job.last } : {};
      const response = await call(`/house/jobs/${job.id}/frames`, { headers, signal: job.stop.signal });
      for await (const { name, data, id } of events(response.body)) {
        if (job !== shown) return;
        tries = 0;
        const said = JSON.parse(data);
        if (name === "end") return;
        if (name === "error") {
          job.last = "";
          beginAgain("Host and coordinator were lost together: the job was restarted.");
          break;
        }
        job.last = id;
        take(said);
      }
    } catch (error) {
      if (error.name === "AbortError" || (error.status && ![429, 502, 503, 504].includes(error.status))) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS[Math.min(tries++, AGAIN_MS.length - 1)]));
  }
}

async function look(job) {
  const found = await (await call(`/house/jobs/${job.id}`, { signal: job.stop.signal })).json();
  if (job === shown) {
    facts(found);
  }
  return found;
}

async function open(id) {
  const job = begin(id);
  try {
    await look(job);
    const took = await (await call(`/house/jobs/${id}/files`, { signal: job.stop.signal })).json();
    if (job === shown) list("inputs", "job-took", took.inputs);
    const looking = setInterval(() => look(job).catch(() => {}), 2_000); // For what frames do not say: its host, its place.
    await follow(job).finally(() => clearInterval(looking));
    for (let tries = 0, found = {}; job === shown && !found.receipt && tries < 20; tries++) {
      found = await look(job);
      if (!found.receipt) await new Promise((resolve) => setTimeout(resolve, 100));
    }
    if (job === shown) $("job-progress").hidden = true;
    listJobs();
  } catch (error) {
    if (job === shown && error.name !== "AbortError") fail(error.message);
  }
}

function opened() {
  const id = location.hash.slice(1);
  if (/^job_[0-9a-f]{32}$/.test(id) && theKey()) return open(id);
  shown?.stop.abort();
  shown = null;
  $("job").hidden = true;
}

async function cancel() {
  try {
    await call(`/house/jobs/${shown.id}/cancel`, { method: "POST" });
  } catch (error) {
    if (error.status !== 409) fail(error.message);
  }
}

async function showReceipt() {
  const box = $("receipt-text");
  if (box.hidden) {
    const envelope = await (await call(`/house/jobs/${shown.id}/receipt`)).json();
    const raw = Uint8Array.from(atob(envelope.payload), (one) => one.charCodeAt(0));
    const statement = JSON.parse(new TextDecoder().decode(raw));
    box.textContent = JSON.stringify({ statement, signatures: envelope.signatures }, null, 2);
  }
  box.hidden = !box.hidden;
  $("receipt").setAttribute("aria-expanded", String(!box.hidden));
}

// -- files -------------------------------------------------------------------------------------------------------

function list(id, box, files) {
  $(box).hidden = files.length === 0;
  for (const one of files.slice(0, FILES_SHOWN)) {
    const name = one.name || one.url || one.file;
    const size = one.size === undefined ? "" : bytes(one.size);
    const item = make("li", {}, make("span", { text: name, className: "name" }), " ", make("span", { text: size, className: "kind" }));
    if (one.file) item.append(" ", make("button", { text: "Download", type: "button", className: "link", onclick: () => download(one) }));
    $(id).append(item);
  }
  if (files.length > FILES_SHOWN) $(id).append(make("li", { text: `and ${files.length - FILES_SHOWN} more`, className: "note" }));
}

function artifact(made) {
  shown.made += 1;
  if (shown.made > FILES_SHOWN) {
    if (shown.made === FILES_SHOWN + 1) $("artifacts").append(make("li", { className: "note", id: "artifacts-more" }));
    $("artifacts-more").textContent = `and ${shown.made - FILES_SHOWN} more: comptoir jobs follow ${shown.id}`;
    return;
  }
  list("artifacts", "job-made", [made]);
  const item = $("artifacts").lastChild;
  const button = make("button", { text: "Show", type: "button", className: "link", onclick: () => play(made, item, button) });
  item.append(" ", button);
  if (shown.played++ < PLAYED_AT_ONCE) play(made, item, button);
}

// A link to a file for a while: elements that play and download send no key of their own.
async function linkTo(file) {
  const made = await (await call(`/house/files/${file.file}/link`, { method: "POST", body: { lasts_s: LINK_S } })).json();
  const url = new URL(made.url, location.href);
  return url.pathname + url.search; // Here, whatever the server calls itself: nothing is played from elsewhere.
}

async function download(file) {
  try {
    make("a", { href: await linkTo(file), download: file.name ?? "" }).click();
  } catch (error) {
    fail(error.message);
  }
}

async function part(file, count) {
  const response = await call(`/house/files/${file.file}`, { headers: { range: `bytes=0-${count - 1}` } });
  return new Uint8Array(await response.arrayBuffer());
}

// What a file is, by its first bytes and never by what its host calls it; "": nothing that is shown here. Whatever is
// in it only ever reaches a picture, a player, or plain text.
function sniff(head) {
  const at = (from, text) => [...text].every((char, index) => head[from + index] === char.charCodeAt(0));
  if (at(0, "\x89PNG") || at(0, "\xff\xd8\xff") || at(0, "GIF8") || (at(0, "RIFF") && at(8, "WEBP")) || at(4, "ftypavif")) return "img";
  if ((at(0, "RIFF") && at(8, "WAVE")) || at(0, "ID3") || at(0, "fLaC") || at(4, "ftypM4A")) return "audio";
  if (head[0] === 0xff && (head[1] & 0xe0) === 0xe0) return "audio"; // MP3 and AAC without a head.
  if (at(0, "OggS")) return at(28, "\x80theora") ? "video" : "audio";
  if (at(4, "ftyp") || at(0, "\x1aE\xdf\xa3")) return "video";
  return head.length && head.every((byte) => byte >= 32 || (byte >= 9 && byte <= 13)) ? "pre" : "";
}

async function play(file, item, button) {
  button.disabled = true;
  let element;
  try {
    const kind = file.size ? sniff(await part(file, HEAD_BYTES)) : "";
    if (kind === "pre") {
      const text = new TextDecoder().decode(await part(file, TEXT_BYTES_SHOWN));
      element = make("pre", { text: file.size > TEXT_BYTES_SHOWN ? `${text}…` : text, tabIndex: 0 });
    } else if (kind) {
      element = make(kind, { src: await linkTo(file), [kind === "img" ? "alt" : "title"]: file.name });
      if (kind !== "img") Object.assign(element, { controls: true, preload: file.size < LOADED_AT_ONCE ? "auto" : "metadata" });
      element.onerror = () => element.replaceWith(make("p", { text: "Your browser can't show this one.", className: "note" }));
    } else element = make("p", { text: "There is nothing to show of it here.", className: "note" });
  } catch (error) {
    element = make("p", { text: sentence(error.message), className: "note" });
  }
  button.remove();
  item.append(element);
}

function start() {
  rememberKey();
  $("order").addEventListener("submit", order);
  $("offer").addEventListener("change", chooseKind);
  let known = theKey();
  $("key").addEventListener("change", () => {
    if (theKey() === known) return;
    known = theKey();
    listJobs();
    opened();
  });
  $("older").addEventListener("click", () => listJobs(true));
  $("cancel").addEventListener("click", cancel);
  $("close").addEventListener("click", () => (location.hash = ""));
  $("receipt").addEventListener("click", () => showReceipt().catch((error) => fail(error.message)));
  addEventListener("hashchange", opened);
  listOffers().catch(() => say("What is on offer could not be read.", true));
  listJobs();
  opened();
}

start();
