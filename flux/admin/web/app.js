// The page: lists the live streams and plays one. The part of the address after # selects it: #live/demo/hls.

import { $, copyButton, h, keyed, mark, show, text } from "./dom.js";
import * as format from "./format.js";
import { canDecode, Player } from "./player.js";
import { renderRecipes } from "./recipes.js";

const K_POLL_MS = 1000;
const K_HISTORY = 60;
const K_SESSIONS = 100;
const K_SURE_MS = 3000;
const KINDS = { flv: "HTTP-FLV", hls: "HLS" };
const LINKS = [
  ["flv", "HTTP-FLV"],
  ["ws_flv", "WebSocket-FLV"],
  ["hls", "HLS"],
  ["ts", "HTTP-TS"],
  ["srt", "SRT"],
];

const root = document.documentElement;
const state = {
  status: null,
  streams: [],
  selected: null, // a stream's name
  kind: "flv",
  player: null,
  playing: "", // what the player was made for
  why: "", // what it says of its state
  history: new Map(), // bitrates by stream
};

function parseHash() {
  const parts = decodeURIComponent(location.hash.slice(1)).split("/").filter(Boolean);
  const kind = parts.length > 1 && parts.at(-1) in KINDS ? parts.pop() : null;
  return { name: parts.join("/") || null, kind };
}

const hashOf = (name, kind) => `#${name}/${kind}`;

function onHash() {
  if (location.hash === "#main") return;
  const { name, kind } = parseHash();
  state.selected = name;
  if (kind) state.kind = kind;
  $("sessions").replaceChildren();
  render();
  if (name) pollSessions();
}

async function get(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  const body = await response.json();
  if (!response.ok) throw new Error(`${body.message}; ${body.cure}`);
  return body;
}

async function poll() {
  try {
    const [status, { streams }] = await Promise.all([get("/api/v1/status"), get("/api/v1/streams")]);
    state.status = status;
    state.streams = streams;
    remember();
    show($("trouble"), false);
    root.dataset.loaded = "true";
    render();
    if (state.selected) await pollSessions();
  } catch (error) {
    const known = error.name !== "TypeError" && error.name !== "TimeoutError";
    text($("trouble"), known ? error.message : "The server does not answer; trying again.");
    show($("trouble"), true);
    pill("no answer", "bad");
  }
}

async function loop() {
  for (;;) {
    if (!document.hidden) await poll();
    await new Promise((resolve) => setTimeout(resolve, K_POLL_MS));
  }
}

async function pollSessions() {
  const name = state.selected;
  try {
    const answer = await get(`/api/v1/sessions?limit=${K_SESSIONS}&stream=${encodeURIComponent(name)}`);
    if (name === state.selected) renderSessions(answer);
  } catch {
    // The next poll tells of it.
  }
}

async function kick(id) {
  await fetch(`/api/v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE", headers: { "X-Flux-Request": "page" } });
  await pollSessions();
}

function remember() {
  const names = new Set(state.streams.map((stream) => stream.name));
  for (const name of state.history.keys()) if (!names.has(name)) state.history.delete(name);
  for (const { name, bitrate_bps: rate } of state.streams) {
    const values = state.history.get(name) ?? [];
    values.push(rate ?? 0);
    state.history.set(name, values.slice(-K_HISTORY));
  }
}

function pill(words, mood) {
  text($("server-state"), words);
  $("server-state").dataset.mood = mood;
}

function renderHead() {
  const { status, streams } = state;
  const sum = (key) => streams.reduce((total, stream) => total + (stream[key] ?? 0), 0);
  text($("total-live"), String(streams.filter((stream) => stream.state === "live").length));
  text($("total-viewers"), String(sum("viewers")));
  text($("total-rate"), format.bitrate(sum("bitrate_bps")));
  text($("total-uptime"), format.duration(status.uptime_s));
  text($("version"), `Flux ${status.version}`);
  const missing = status.processes.filter((process) => process.state !== "running");
  if (status.state !== "running") pill(status.state, "fair");
  else if (missing.length) pill(`${missing.map((process) => process.name).join(", ")} not running`, "bad");
  else pill("running", "good");
}

function streamCard() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${K_HISTORY - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  return h(
    "li",
    {},
    h(
      "a.card",
      { href: "#" },
      h("span.dot"),
      h("strong.name"),
      h("span.viewers", { title: "viewers" }),
      h("span.media"),
      h("span.line", {}, h("span.rate"), svg, h("span.uptime")),
    ),
  );
}

function sparkline(svg, values) {
  const top = Math.max(...values) * 1.15 || 1;
  const offset = K_HISTORY - values.length;
  const points = values.map((value, place) => `${offset + place},${(19 - (value / top) * 18).toFixed(1)}`);
  svg.firstChild.setAttribute("points", points.join(" "));
}

function mediaText(stream) {
  const shown = stream.tracks.filter((track) => track.kind !== "data").map(format.trackText);
  const others = stream.tracks.length - shown.length;
  const rate = format.frameRate(stream);
  if (rate) shown.splice(1, 0, rate);
  if (others) shown.push(`${others} data`);
  return shown.join(" · ") || "waiting for its first frames";
}

function updateCard(item, stream) {
  const card = item.firstChild;
  const part = (name) => card.querySelector(`.${name}`);
  card.setAttribute("href", hashOf(stream.name, state.kind));
  mark(card, stream.name === state.selected);
  card.dataset.state = stream.state;
  text(part("name"), stream.name);
  text(part("viewers"), `${stream.viewers} ${stream.viewers === 1 ? "viewer" : "viewers"}`);
  text(part("media"), mediaText(stream));
  text(part("rate"), stream.state === "live" ? format.bitrate(stream.bitrate_bps) : "publisher away");
  text(part("uptime"), stream.state === "live" ? format.duration(stream.uptime_s) : "");
  sparkline(card.querySelector("svg"), state.history.get(stream.name) ?? []);
}

function overlay(words) {
  text($("overlay"), words);
  show($("overlay"), words !== "");
}

function onPlayer(what, why) {
  $("video").dataset.state = what;
  state.why = why;
  renderOverlay();
}

function renderOverlay() {
  const stream = state.streams.find((other) => other.name === state.selected);
  const what = $("video").dataset.state;
  const words = {
    loading: "Loading …",
    stalled: "Waiting for the stream …",
    waiting: state.why ? `Waiting for the stream (${state.why})` : "Waiting for the stream …",
    failed: state.why,
  };
  if (!stream) overlay(`Nobody publishes ${state.selected}.`);
  else if (what === "playing") overlay("");
  else if (stream.state === "idle") overlay("The publisher is away; it may come back.");
  else if (!stream.tracks.length) overlay("Waiting for its first frames …");
  else overlay(words[what] ?? "");
}

function stopPlayer() {
  state.player?.stop();
  state.player = null;
  state.playing = "";
  delete $("video").dataset.state;
}

function renderPlayer(stream) {
  const wanted = stream ? `${stream.name} ${state.kind}` : "";
  if (wanted === state.playing) return;
  // Its tracks tell what the player has to be ready for.
  if (stream && !stream.tracks.length) return;
  stopPlayer();
  state.playing = wanted;
  if (!stream) return;
  $("video").dataset.kind = state.kind;
  const decodes = canDecode(stream);
  if (decodes !== true) {
    onPlayer("failed", `This browser does not decode ${format.codecName(decodes)}. Play it with VLC or ffplay: the addresses are below.`);
  } else if (!stream.play[state.kind]) {
    onPlayer("failed", "This server does not listen for media over HTTP: http.listen is empty.");
  } else {
    state.player = new Player($("video"), state.kind, stream.play[state.kind], stream, onPlayer);
  }
}

function renderFacts(stream) {
  const facts = stream.tracks.map((track) => [track.kind, format.trackText(track)]);
  if (stream.fps) facts.push(["frames", `${stream.fps.toFixed(1)} fps`]);
  facts.push(["bitrate", stream.state === "live" ? format.bitrate(stream.bitrate_bps) : "–"]);
  facts.push(["viewers", String(stream.viewers)]);
  facts.push(["live for", format.duration(stream.uptime_s)]);
  facts.push(["received", format.bytes(stream.bytes_in)]);
  facts.push(["published by", (stream.protocol === "demo" ? "this server" : stream.protocol.toUpperCase()) + (stream.publishers > 1 ? `, ${stream.publishers} times` : "")]);
  if (stream.ts_errors) facts.push(["errors", String(stream.ts_errors)]);
  keyed(
    $("facts"),
    facts.map(([name, value], place) => ({ name, value, place })),
    (fact) => `${fact.name} ${fact.place}`,
    () => h("div", {}, h("dt"), h("dd")),
    (element, { name, value }) => {
      text(element.firstChild, name);
      text(element.lastChild, value);
    },
  );
}

function renderLinks(stream) {
  keyed(
    $("links"),
    LINKS.filter(([key]) => stream.play[key]),
    ([key]) => key,
    ([, title]) => {
      const code = h("code", { tabindex: "0" });
      return h("li", {}, h("span.quiet", {}, title), code, copyButton(() => code.textContent, `the ${title} address`));
    },
    (element, [key]) => text(element.querySelector("code"), stream.play[key]),
  );
}

function kickButton(id) {
  let sure = false;
  return h(
    "button.button.small",
    {
      type: "button",
      "aria-label": `End session ${id}`,
      onclick: (event) => {
        const button = event.currentTarget;
        if (sure) {
          button.disabled = true;
          kick(id);
          return;
        }
        sure = true;
        button.classList.add("sure");
        button.textContent = "Sure?";
        setTimeout(() => {
          sure = false;
          button.classList.remove("sure");
          button.textContent = "Kick";
        }, K_SURE_MS);
      },
    },
    "Kick",
  );
}

function renderSessions({ sessions, total }) {
  text($("sessions-count"), total > sessions.length ? `${sessions.length} of ${total}` : String(total));
  const order = (session) => (session.role === "publish" ? 0 : 1);
  keyed(
    $("sessions"),
    sessions.toSorted((a, b) => order(a) - order(b)),
    (session) => session.id,
    (session) =>
      h("tr", { title: session.id }, h("td", {}, h("span"), h("span.way")), h("td"), h("td.number"), h("td.number", {}, kickButton(session.id))),
    (row, session) => {
      const cells = row.children;
      row.dataset.role = session.role;
      const way = session.protocol === "demo" ? "demo" : session.protocol.toUpperCase();
      text(cells[0].firstChild, session.peer || "this server");
      text(cells[0].lastChild, session.role === "publish" ? `publishes, ${way}` : way);
      text(cells[1], format.duration((Date.now() - Date.parse(session.since)) / 1000));
      text(cells[2], format.bytes(session.bytes));
    },
  );
}

function renderHealth() {
  const { player } = state;
  const behind = player?.behind();
  if (!player || behind === null || $("video").dataset.state !== "playing") {
    text($("health"), "");
    return;
  }
  const dropped = $("video").getVideoPlaybackQuality?.().droppedVideoFrames ?? 0;
  text($("health"), `${behind.toFixed(1)} s buffered${dropped ? `, ${dropped} frames dropped` : ""}`);
}

function renderWatch(stream) {
  text($("name"), state.selected);
  document.title = `${state.selected} · Flux`;
  for (const kind of Object.keys(KINDS)) {
    const link = $(`by-${kind}`);
    link.setAttribute("href", hashOf(state.selected, kind));
    mark(link, kind === state.kind);
  }
  renderPlayer(stream);
  renderOverlay();
  renderHealth();
  if (!stream) {
    for (const id of ["facts", "links"]) $(id).replaceChildren();
    return;
  }
  renderFacts(stream);
  renderLinks(stream);
}

function render() {
  if (!state.status) return;
  const { streams, selected } = state;
  renderHead();
  const publish = state.status.publish.srt;
  document.querySelectorAll(".recipes").forEach((parent) => renderRecipes(parent, publish));
  const bare = !streams.length && !selected;
  show($("empty"), bare);
  show($("list"), streams.length > 0);
  show($("stage"), !bare);
  show($("watch"), selected !== null);
  show($("invite"), selected === null);
  show($("how"), !bare);
  $("main").dataset.layout = bare ? "empty" : streams.length ? "both" : "stage";
  keyed($("streams"), streams, (stream) => stream.name, streamCard, updateCard);
  if (selected !== null) {
    renderWatch(streams.find((stream) => stream.name === selected));
    return;
  }
  document.title = "Flux";
  stopPlayer();
  if (streams.length) {
    const best = streams.find((stream) => stream.state === "live" && canDecode(stream) === true) ?? streams[0];
    $("invite").setAttribute("href", hashOf(best.name, state.kind));
    text($("invite-name"), best.name);
  }
}

$("theme").addEventListener("click", () => {
  const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("flux-theme", root.dataset.theme);
});
$("how").addEventListener("click", () => $("publish").showModal());
$("publish").addEventListener("click", (event) => event.target === $("publish") && $("publish").close());
document.addEventListener("visibilitychange", () => !document.hidden && state.player?.catchUp());
window.addEventListener("hashchange", onHash);
if (localStorage.getItem("flux-theme")) root.dataset.theme = localStorage.getItem("flux-theme");
onHash();
loop();
