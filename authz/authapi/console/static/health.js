// The view of a replica's health: what /auth/status tells.

import * as api from "/auth/console/api.js";
import { become, byId, count, element, foreign, moment, seconds, terms } from "/auth/console/dom.js";

const often = 5000; // milliseconds

let timer = null;
let turn = 0;
let before = new Map(); // of each replica the status before, with when it came

// start shows it, and keeps it fresh. failed is told what goes wrong.
export async function start(failed) {
  stop();
  before = new Map();
  const mine = turn;
  await load();
  const again = async () => {
    if (mine !== turn) return;
    try {
      if (!document.hidden) await load();
    } catch (error) {
      if (mine !== turn) return;
      await failed(error);
    }
    if (mine === turn) timer = setTimeout(again, often);
  };
  if (mine === turn) timer = setTimeout(again, often);
}

export function stop() {
  turn++;
  clearTimeout(timer);
}

// forget drops what was shown: somebody else may log in.
export function forget() {
  stop();
  byId("health-cards").replaceChildren();
  byId("policies").replaceChildren();
}

export async function load() {
  const mine = turn;
  const status = await api.status();
  if (mine !== turn) return;
  const name = status.replica.name, now = performance.now(), last = before.get(name);
  draw(status, last?.status, last ? (now - last.at) / 1000 : 0);
  before.set(name, { status, at: now });
}

const good = (text) => element("span", { class: "badge" }, text);
const bad = (text) => element("span", { class: "badge bad" }, text);
const still = (text) => element("span", { class: "badge still" }, text);
const percent = (share) => `${(100 * share).toFixed(share > 0.999 && share < 1 ? 2 : 1)} %`;
const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const total = (policies) => policies.reduce((n, { allowed, denied }) => n + allowed + sum(denied), 0);
const error = (text) => (text ? [["Error", foreign(text, "bad")]] : []);

function card(title, id, badge, pairs) {
  const list = element("dl");
  terms(list, pairs);
  return element("section", { class: "card", "aria-labelledby": id },
    element("h2", { id }, title, " ", badge), list);
}

function draw(now, last, took) {
  fill("health-cards", replica(now, last, took), cache(now.cache), store(now.store, last?.store), configuration(now.config), issuers(now.issuers));
  fill("policies", ...now.policies.map(policy));
}

function fill(id, ...children) {
  const made = byId(id).cloneNode(false);
  made.append(...children);
  become(byId(id), made);
}

function replica({ replica, load, policies }, last, took) {
  const all = total(policies);
  return card("Replica", "replica-title", replica.state === "ready" ? good("ready") : bad(replica.state), [
    ["Version", foreign(replica.version)],
    ["Up for", seconds(replica.uptimeSeconds)],
    ["Decisions", count(all)],
    ["Right now", last && took > 0 ? `${count(Math.max(0, Math.round((all - total(last.policies)) / took)))} a second` : "…"],
    ["Under way", count(load.inFlight)],
    ...(sum(load.shed) ? [["Shed", foreign(`${count(sum(load.shed))} (${list(load.shed)})`)]] : []),
    ["Name", element("span", {}, element("span", { class: "code" }, replica.name), replica.host ? " on " : false, replica.host ? foreign(replica.host) : false)],
  ]);
}

const list = (counts) => Object.entries(counts).sort(([, a], [, b]) => b - a).map(([what, n]) => `${what.replaceAll("_", " ")} ${count(n)}`).join(", ");

function cache(c) {
  const states = { coherent: good("coherent"), off: still("off"), unsupported: still("not supported"), incoherent: bad("incoherent") };
  if (c.state === "off") return card("Cache", "cache-title", states.off, [["So", "Redis is asked every time"]]);
  if (c.state === "unsupported") return card("Cache", "cache-title", states.unsupported, [["So", "the store is asked every time"], ["Why", foreign(c.error)]]);
  const asked = c.hits + c.misses + c.stale;
  return card("Cache", "cache-title", states[c.state], [
    ["Hits", asked ? `${percent(c.hitRatio)} of ${count(asked)}` : "nothing was asked yet"],
    ["Entries", `${count(c.entries)}, ${(c.bytes / 1048576).toFixed(1)} MiB`],
    ["Fresh to", seconds(c.proofAgeSeconds)],
    ["Dropped", count(c.drops, "time", "times")],
    ...(c.evictions ? [["Made place", count(c.evictions, "time", "times")]] : []),
    ...(c.stale ? [["Stale answers", count(c.stale)]] : []),
    ...error(c.error),
  ]);
}

function store(s, last) {
  const answered = last ? s.answered - last.answered : 0;
  const failed = sum(s.outcomes) - (s.outcomes.ok ?? 0) - (s.outcomes.again ?? 0);
  const badge = s.silentServers ? bad(`${count(s.silentServers, "server", "servers")} silent`) : s.state === "up" ? good("up") : bad(s.state);
  return card("Store", "store-title", badge, [
    ["Answers", s.answered ? count(s.outcomes.ok ?? 0) : "no commands: it is built in, or nobody asked"],
    ...(s.answered ? [
      ["On average", seconds(s.seconds / s.answered)],
      ["Right now", answered > 0 ? seconds(Math.max(0, s.seconds - last.seconds) / answered) : "nothing was asked"],
      ["99 of 100", s.p99Seconds ? `within ${seconds(s.p99Seconds)}` : "longer than can be told"],
    ] : []),
    ["Failures", failed ? foreign(list(Object.fromEntries(Object.entries(s.outcomes).filter(([outcome]) => !["ok", "again"].includes(outcome))))) : "none"],
    ["Waiting", count(s.waiting)],
    ...(sum(s.refused) ? [["Not asked", foreign(list(s.refused))]] : []),
    ...error(s.error),
  ]);
}

function configuration(c) {
  return card("Configuration", "config-title", c.state === "current" ? good("in force") : bad("file rejected"), [
    ["Loaded", moment(c.loaded)],
    ["Generation", count(c.generation)],
    ["Hash", foreign(c.hash, "code")],
    ...(c.pendingRestart.length ? [["After a restart", foreign(c.pendingRestart.join(", "))]] : []),
    ...error(c.error),
  ]);
}

function issuers(all) {
  const broken = all.some((issuer) => issuer.keys === 0), late = all.some((issuer) => issuer.failures > 0);
  const badge = all.length === 0 ? still("none") : broken ? bad("keys missing") : late ? bad("fetch failed") : good("keys there");
  return card("Issuers", "issuers-title", badge, all.length === 0
    ? [["Keys", "none are fetched"]]
    : all.flatMap((issuer) => [
      ["Issuer", foreign(issuer.issuer)],
      ["Keys", count(issuer.keys)],
      ["Last fetch", issuer.lastFetch ? moment(issuer.lastFetch) : "never"],
      ...(issuer.failures ? [["Failed since", count(issuer.failures, "time", "times")]] : []),
      ...error(issuer.error),
    ]));
}

const link = (policy, reason) => `#/decisions?${new URLSearchParams({ ...(policy ? { policy } : {}), reason })}`;

function policy({ name, mode, default: byDefault, allowed, denied, observed, degraded }) {
  const cell = (label, ...content) => element("td", { role: "cell", "data-label": label, class: /^(Allowed|Denied)$/.test(label) ? "number" : false }, ...content);
  const reasons = (counts) => Object.entries(counts).sort(([, a], [, b]) => b - a).map(([reason, n]) => element("li", {},
    element("a", { href: link(name, reason) }, reason.replaceAll("_", " ")), ` ${count(n)}`));
  const notes = [
    Object.keys(denied).length ? element("ul", { class: "reasons", "aria-label": `Denied under ${name || "no policy"}` }, ...reasons(denied)) : false,
    Object.keys(observed).length ? element("ul", { class: "reasons would", "aria-label": `Would be denied under ${name}` }, element("li", {}, "would deny:"), ...reasons(observed)) : false,
    Object.keys(degraded).length ? element("p", { class: "flush soft" }, `without the store: ${list(degraded)}`) : false,
  ].filter(Boolean);
  return element("tr", { role: "row" }, // the roles stay where a narrow page has no table
    element("th", { role: "rowheader", scope: "row" }, name ? foreign(name) : "no policy was chosen",
      mode === "observe" ? element("span", { class: "badge warn" }, "observes") : false,
      byDefault ? element("span", { class: "badge still" }, "default") : false),
    cell("Allowed", count(allowed)), cell("Denied", count(sum(denied))),
    cell("Denied for", ...(notes.length ? notes : [element("span", { class: "soft" }, "nothing")])));
}
