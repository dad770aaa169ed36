// The view of decisions: those of the replica that answers, as they are made.

import * as api from "/auth/console/api.js";
import { byId, count, element, foreign, marked, seconds, timeOfDay } from "/auth/console/dom.js";

const most = 400; // rows
const rows = new Map(); // by id: { decision, row }
const filters = ["only", "policy", "reason", "user", "request"];

let run = null; // the AbortController of what listens; null: nothing does
let last = ""; // id of the last decision
let seen = new Map(); // the highest number of each replica
let leftOut = new Map(); // by replica
let paused = false;
let waiting = []; // the last of what came meanwhile
let came = 0; // how many that was

const value = (name) => byId(`filter-${name}`).value.trim();

// start shows what query says, and listens. failed is told what can't be mended by
// waiting.
export function start(query, failed) {
  for (const name of filters) {
    const field = byId(`filter-${name}`), wanted = query?.get(name) ?? "";
    if (field.tagName === "SELECT") offer(field, wanted);
    field.value = wanted;
  }
  filter();
  stop();
  state("Connecting…");
  run = new AbortController();
  listen(run.signal, failed);
}

// stop ends it; what is shown stays.
export function stop() {
  run?.abort();
  run = null;
}

// forget drops what was shown: somebody else may log in.
export function forget() {
  stop();
  rows.clear();
  byId("decisions").replaceChildren();
  last = "";
  seen = new Map();
  leftOut = new Map();
  waiting = [];
  came = 0;
  pause(false);
}

// known notes an id, and reports whether it was there before. Replicas are asked in
// turn: who is asked again without one of its own ids tells everything.
function known(id) {
  const [replica, digits] = id.split("-"), number = Number(digits);
  last = id;
  if (number <= (seen.get(replica) ?? 0)) return true;
  seen.set(replica, number);
  return false;
}

const sleep = (time, signal) => new Promise((done) => {
  const timer = setTimeout(done, time);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    done();
  });
});

const visible = (signal) => new Promise((done) => {
  const look = () => {
    if (document.hidden && !signal.aborted) return;
    document.removeEventListener("visibilitychange", look);
    done();
  };
  document.addEventListener("visibilitychange", look);
  signal.addEventListener("abort", look);
  look();
});

async function listen(signal, failed) {
  for (let failures = 0; !signal.aborted;) {
    await visible(signal);
    if (signal.aborted) return;
    try {
      await api.decisions({ after: last, signal, on: (event, data) => {
        failures = 0;
        if (signal.aborted) return;
        if (event === "state") {
          leftOut.set(data.replica, data.leftOut);
          state("Live");
        } else if (event === "decision") {
          if (known(data.id)) return;
          if (paused) later(data);
          else add(data);
        }
        counts();
      } });
    } catch (error) {
      if (signal.aborted) return;
      if ([401, 403].includes(error.status)) {
        state("Not live", true);
        failed(error);
        return;
      }
      if (error.status === 404) {
        state("There is none here", true);
        return;
      }
      failures++;
      state(error.status === 503 ? "Busy: trying again…" : "Connecting again…", true);
    }
    await sleep(failures === 0 ? 100 : Math.min(15_000, 500 * 2 ** failures), signal);
  }
}

// state says whether the list is live. Screen readers hear it when it changes.
function state(text, bad = false) {
  const badge = byId("stream-state");
  if (paused && !bad) text = "Paused";
  if (badge.textContent !== text) badge.textContent = text;
  badge.classList.toggle("bad", bad);
  badge.classList.toggle("still", paused && !bad);
}

function counts() {
  const shown = [...rows.values()].filter(({ row }) => !row.hidden).length;
  const lost = [...leftOut.values()].reduce((a, b) => a + b, 0);
  byId("decisions-count").textContent = [
    count(shown, "decision", "decisions"),
    paused && came ? `${count(came)} more since you paused` : "",
    lost ? `${count(lost)} not kept: too many at once` : "",
  ].filter(Boolean).join(" · ");
}

// later keeps what comes while the list is paused: as many as it can show, for pauses may
// be long.
function later(decision) {
  waiting.push(decision);
  came++;
  if (waiting.length > most) waiting.splice(surplus(waiting), 1);
}

// ---- Rows.

const refused = (decision) => decision.decision === "deny" || decision.wouldDeny !== "";
const why = (decision) => decision.wouldDeny || decision.reason;
const words = (reason) => reason.replaceAll("_", " ");

function add(decision) {
  const row = rowOf(decision);
  rows.set(decision.id, { decision, row });
  row.hidden = !matches(decision);
  // Replicas are asked in turn, so the last that comes isn't always the latest.
  const list = byId("decisions");
  const before = [...list.children].find((other) => other.dataset.time <= row.dataset.time);
  list.insertBefore(row, before ?? null);
  offer(byId("filter-policy"), decision.policy);
  offer(byId("filter-reason"), why(decision));
  if (rows.size > most) {
    const all = [...list.children].reverse();
    const oldest = all[surplus(all.map((other) => rows.get(other.dataset.id).decision))];
    oldest.remove();
    rows.delete(oldest.dataset.id);
  }
}

// surplus is which one of too many goes, the oldest standing first: the oldest of the
// reason that has the most, so that a flood pushes out nothing but itself.
function surplus(all) {
  const counts = new Map();
  for (const decision of all) counts.set(why(decision), (counts.get(why(decision)) ?? 0) + 1);
  const highest = Math.max(...counts.values());
  return all.findIndex((decision) => counts.get(why(decision)) === highest);
}

// offer adds a choice to a filter.
function offer(select, choice) {
  if (!choice || [...select.options].some((option) => option.value === choice)) return;
  const made = element("option", { value: choice });
  made.append(foreign(select.id === "filter-reason" ? words(choice) : choice).textContent);
  const after = [...select.options].slice(1).find((option) => option.value > choice);
  select.insertBefore(made, after ?? null);
}

function verdict(decision) {
  if (decision.decision === "deny") return element("span", { class: "badge bad" }, "denied");
  if (decision.wouldDeny) return element("span", { class: "badge warn" }, "would deny");
  return element("span", { class: "badge" }, "allowed");
}

function rowOf(decision) {
  const summary = element("summary", {},
    verdict(decision),
    element("strong", {}, words(why(decision))),
    element("span", { class: "code request" }, foreign(decision.method), " ", foreign(decision.path || "(no path)")),
    element("span", { class: "soft" }, decision.user ? foreign(decision.user) : "unknown"),
    timeOfDay(decision.time));
  const details = element("details", {}, summary);
  details.addEventListener("toggle", () => { // most are never opened
    if (details.open && details.childElementCount === 1) details.append(explanation(decision));
  });
  return element("li", { "data-time": decision.time, "data-id": decision.id }, details);
}

function explanation(decision) {
  const facts = [
    ["Policy", decision.policy ? foreign(decision.policy) : "none was chosen"],
    ["Credential", decision.credential ? words(decision.credential) : "none"],
    ["User", decision.user ? person(decision.user) : "not known"],
    ["Session", decision.session && foreign(decision.session, "code")],
    ["Client got", decision.status ? String(decision.status) : "the service's answer"],
    ["Host", foreign(decision.host)],
    ["Request id", decision.requestId && foreign(decision.requestId, "code")],
    ["Without the store", decision.degraded && words(decision.degraded)],
    ["Took", seconds(decision.tookMicroseconds / 1e6)],
    ["Replica", element("span", { class: "code" }, decision.id.split("-")[0])],
  ].filter(([, description]) => description);
  return element("div", { class: "explanation" },
    element("p", { class: "means" }, ...marked(decision.means)),
    decision.do ? element("p", {}, element("strong", {}, "What to do: "), ...marked(decision.do)) : false,
    refused(decision) ? steps(decision) : false,
    element("dl", {}, ...facts.map(([term, description]) => element("div", {}, element("dt", {}, term), element("dd", {}, description)))),
    refused(decision) ? command(decision) : false);
}

const person = (id) => (/^service:/.test(id) ? foreign(id) : element("a", { href: `#/user/${encodeURIComponent(id)}` }, foreign(id)));

function steps(decision) {
  return element("ol", { class: "steps", "aria-label": "How far it got" }, ...decision.steps.map((step) => element("li", { class: step.outcome },
    element("span", { class: "mark", "aria-hidden": "true" }, step.outcome === "ok" ? "✓" : "✕"),
    element("span", { class: "hidden" }, step.outcome === "ok" ? "in order: " : "refused: "),
    element("span", {},
      element("strong", {}, stages[step.stage] ?? step.stage),
      step.name ? foreign(step.name, "step") : "",
      step.detail ? element("span", { class: "soft" }, step.name ? " – " : " ", foreign(step.detail)) : ""))));
}

const stages = {
  request: "Request:", policy: "Policy:", credential: "Credential:", proof: "Is it valid?", revocation: "Was it revoked?",
  identity: "Who is it?", condition: "What the policy asks:", limit: "Rate limit:", "": "Somewhere behind these:",
};

// quoted is a word of a shell, whatever stands in it.
const quoted = (word) => (/^[\w./:-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
const credentials = { session: "cookie: …", bearer: "authorization: Bearer …", api_key: "x-internal-api-key: …" };

// command is what tells the steps with their details: it takes the credential,
// which nobody has kept.
function command(decision) {
  const sent = [decision.method, decision.host, decision.path];
  if (sent.some((text) => text === "" || /…$|\[secret\]/.test(text) || text !== foreign(text).textContent)) { // another request's answer would mislead
    return element("p", { class: "hint" }, "What was sent is too long, holds a secret or can't be typed: there is no command that asks for it again.");
  }
  const header = credentials[decision.credential];
  const text = [
    "gatehouse explain --server 127.0.0.1:9090",
    decision.policy ? `--policy ${quoted(decision.policy)}` : "",
    `curl -X ${quoted(decision.method)} ${quoted(["https:", "", decision.host + decision.path].join("/"))}`,
    header ? `-H '${header}'` : "",
  ].filter(Boolean).join(" ");
  return element("div", {},
    element("p", { class: "hint" }, "Each step with its details: with the client's credential, on the host of the replica."),
    element("pre", { class: "code", tabindex: "0", "aria-label": "Command" }, text));
}

// ---- Filters.

function matches(decision) {
  const user = value("user").toLowerCase(), request = value("request").toLowerCase();
  return (value("only") === "all" || refused(decision))
    && (!value("policy") || decision.policy === value("policy"))
    && (!value("reason") || why(decision) === value("reason"))
    && (!user || decision.user.toLowerCase().includes(user))
    && (!request || decision.requestId.toLowerCase().includes(request));
}

function filter() {
  for (const { decision, row } of rows.values()) row.hidden = !matches(decision);
  counts();
}

byId("filters").addEventListener("input", () => {
  filter();
  const query = new URLSearchParams(filters.map((name) => [name, value(name)]).filter(([, wanted]) => wanted)).toString();
  history.replaceState(null, "", query ? `#/decisions?${query}` : "#/decisions");
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());

function pause(on) {
  paused = on;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) {
    for (const decision of waiting) add(decision);
    waiting = [];
    came = 0;
  }
  if (!byId("stream-state").classList.contains("bad")) state(paused ? "Paused" : "Live");
  counts();
}
byId("pause").addEventListener("click", () => pause(!paused));
