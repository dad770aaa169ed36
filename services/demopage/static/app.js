"use strict";

// The page, as a single-page application would be: it logs in with a session
// or a token, and calls services. Everything goes through the gateway.

const byId = (id) => document.getElementById(id);
const identity = ["x-user-id", "x-user-email", "x-user-roles", "x-org-id"];

// How this page is logged in: "" for not at all, "session" or "token". The
// access token is here and nowhere else: a reload forgets it, and the refresh
// token in its cookie brings the next one.
let mode = "";
let token = null; // {raw, expires}
let people = []; // whom the demo has
let steps = []; // what the last button did

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// ---- Requests.

// send makes one request and notes it among the steps, unless it is silent.
// The answer is JSON, or text where a service says something else. Of two
// credentials the session decides: so with a token the cookies stay at home,
// but for the calls that need the refresh token.
async function send(method, path, { body, headers = {}, cookies = mode !== "token", silent = false, note = "" } = {}) {
  const form = body instanceof URLSearchParams;
  const all = { ...headers };
  if (mode === "token" && token && !("authorization" in all)) all.authorization = `Bearer ${token.raw}`;
  if (body && !form) all["content-type"] = "application/json";
  const response = await fetch(path, {
    method, headers: all, credentials: cookies ? "same-origin" : "omit", cache: "no-store",
    body: body && !form ? JSON.stringify(body) : body,
  });
  const text = await response.text();
  let answer = text;
  try {
    answer = JSON.parse(text);
  } catch {
    // It is text, then.
  }
  const wait = Number(response.headers.get("retry-after")) || 0;
  if (!silent) {
    steps.push({ call: `${method} ${path}${note}`, status: response.status, ok: response.ok });
    showSteps();
  }
  return { status: response.status, ok: response.ok, answer, wait };
}

// asMe does the same as the user: when the access token is no good any more it
// gets the next one and asks again.
async function asMe(method, path, options) {
  const first = await send(method, path, options);
  if (first.status !== 401 || mode !== "token") {
    if (first.status === 401 && mode === "session") nobody();
    return first;
  }
  if (!(await refresh(options?.silent))) return first;
  return send(method, path, options);
}

let refreshing = null; // several calls at once share one

function refresh(silent) {
  refreshing ??= (async () => {
    const { status, ok, answer } = await send("POST", "/auth/refresh", { cookies: true, headers: { authorization: "" }, silent });
    if (ok) keep(answer);
    else if (status === 401) nobody();
    return ok;
  })().finally(() => { refreshing = null; });
  return refreshing;
}

function keep({ accessToken, expiresIn }) {
  mode = "token";
  token = { raw: accessToken, expires: Date.now() + expiresIn * 1000 };
}

// ---- What is shown.

function showSteps() {
  byId("steps").replaceChildren(...steps.map(({ call, status, ok }) => element("li", {}, `${call} → `,
    element("strong", { class: ok ? "good" : "bad" }, `${status} ${ok ? "allowed" : "refused"}`))));
}

function showAnswer(answer) {
  byId("body").textContent = typeof answer === "string" ? answer : JSON.stringify(answer, null, 2);
}

function showHeaders(headers) {
  byId("headers").tBodies[0].replaceChildren(...identity.map((name) => element("tr", {},
    element("td", {}, name), element("td", {}, headers?.[name]?.join(" | ") ?? "(not there)"))));
}

function complain({ status, answer, wait }) {
  const after = wait ? ` Try again in ${wait} ${wait === 1 ? "second" : "seconds"}.` : "";
  const words = {
    401: "This email address and password don't belong together.",
    403: "That is not allowed.",
    429: `Too many tries.${after}`,
    500: `That failed: ${answer?.error ?? "an error"}.`,
    503: `Gatehouse can't know right now, for its store is out of reach.${after}`,
  };
  byId("problem").textContent = words[status] ?? `Gatehouse answers ${status}.`;
}

function nobody() {
  mode = "";
  token = null;
  byId("me").textContent = "Nobody.";
  byId("login").hidden = false;
  byId("inside").hidden = byId("mine").hidden = byId("console").hidden = true;
}

// whoAmI asks, and shows what may be done now.
async function whoAmI() {
  const me = await asMe("GET", "/auth/me", { silent: true });
  if (me.status === 401) return nobody();
  if (!me.ok) {
    byId("me").textContent = "Unknown.";
    return complain(me);
  }
  mode ||= "session";
  const user = me.answer;
  byId("me").textContent = user.email || user.userId;
  const facts = [["User id", user.userId], ["Roles", user.roles.join(", ") || "none"], ["Organization", user.organizationId || "none"],
    ["Logged in by", mode === "token" ? "access token" : "session cookie"]];
  byId("facts").replaceChildren(...facts.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
  if (mode === "token") {
    byId("facts").append(element("dt", {}, "Token"), element("dd", { role: "timer", id: "left" }));
    byId("claims").textContent = claims();
    showTimeLeft();
  }
  const choices = user.organizations;
  byId("switch").hidden = choices.length < 2;
  byId("organization").replaceChildren(...choices.map((name) => element("option", name === user.organizationId ? { selected: "" } : {}, name)));
  for (const id of ["refresh", "revoke-mine", "inspect", "hint-token"]) byId(id).hidden = mode !== "token";
  byId("hint-session").hidden = mode !== "session";
  byId("console").hidden = !user.roles.includes("admin");
  byId("login").hidden = true;
  byId("inside").hidden = byId("mine").hidden = false;
  await showSessions();
}

// claims reads the token for people; whether it is true is the gate's to say.
function claims() {
  try {
    const part = token.raw.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.stringify(JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0)))), null, 2);
  } catch {
    return "unreadable";
  }
}

function showTimeLeft() {
  const place = byId("left");
  if (!place || !token) return;
  const seconds = Math.max(0, Math.round((token.expires - Date.now()) / 1000));
  place.textContent = seconds ? `expires in ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}` : "expired";
}
setInterval(showTimeLeft, 1000);

async function showSessions() {
  const { ok, answer } = await asMe("GET", "/auth/sessions", { silent: true });
  if (!ok) return;
  const all = [
    ...answer.sessions.map((login) => ({ ...login, kind: "session" })),
    ...answer.tokens.map((login) => ({ ...login, kind: "token login" })),
  ];
  byId("sessions").replaceChildren(...all.map(sessionRow));
}

function sessionRow(login, i) {
  const seen = login.lastSeen ?? login.createdAt;
  const name = element("strong", { id: `device-${i}` }, element("bdi", {}, device(login.userAgent)));
  const button = element("button", { class: "quiet", "aria-describedby": name.id }, "End");
  whenPressed(button, async () => {
    const ended = await asMe("DELETE", `/auth/sessions/${encodeURIComponent(login.handle)}`);
    if (!ended.ok) return complain(ended);
    await whoAmI();
    byId(mode ? "mine-title" : "who").focus();
  });
  return element("li", {}, element("span", {}, name,
    element("small", {}, `${login.kind}, from ${login.address || "somewhere"}${seen ? `, last seen ${new Date(seen).toLocaleString()}` : ""}`)),
    login.current ? element("span", { class: "badge" }, "this one") : "", button);
}

// device guesses, for people, what a user agent is. Control characters and
// those that turn the direction of writing round are left out.
function device(agent) {
  const named = (names) => names.find((name) => agent?.includes(name));
  const browser = named(["Edg", "OPR", "Firefox", "Chrome", "Safari"]);
  const system = named(["iPhone", "iPad", "Android", "Windows", "CrOS", "Mac OS X", "Linux"]);
  if (browser && system) return `${{ Edg: "Edge", OPR: "Opera" }[browser] ?? browser} on ${system}`;
  return agent?.replace(/[\p{Cc}\p{Cf}]/gu, "").slice(0, 60) || "Unknown device";
}

// ---- What the buttons do.

// whenPressed begins a new list of steps; a second press while the first is
// under way is ignored.
function whenPressed(button, act, kind = "click") {
  let busy = false;
  button.addEventListener(kind, async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    steps = [];
    byId("steps").setAttribute("aria-busy", "true");
    byId("problem").textContent = "";
    try {
      await act(button);
    } catch (error) {
      byId("problem").textContent = "The gateway doesn't answer. Is the demo still running?";
      console.error(error);
    } finally {
      byId("steps").removeAttribute("aria-busy");
      busy = false;
    }
  });
}

// call sends a request and shows what came of it. The echo route tells which
// headers reached the service for the same caller.
async function call(path, options = {}) {
  const { ok, answer } = await (options.headers?.authorization ? send : asMe)("GET", path, options);
  showAnswer(answer);
  let arrived = answer?.headers;
  if (ok && !arrived) {
    const echo = await send("GET", "/users/echo", { ...options, silent: true });
    arrived = echo.ok ? echo.answer.headers : undefined;
  }
  showHeaders(ok ? arrived : undefined);
}

const bearer = (raw, note) => ({ headers: { authorization: `Bearer ${raw}` }, cookies: false, note });

async function logIn() {
  const wanted = document.querySelector("[name=mode]:checked").value;
  const body = { email: byId("email").value.trim(), password: byId("password").value };
  const answer = await send("POST", wanted === "token" ? "/auth/token" : "/auth/login", { body, cookies: true });
  showHeaders();
  if (!answer.ok) {
    showAnswer(answer.answer);
    complain(answer);
    byId("password").focus();
    return;
  }
  byId("password").value = "";
  if (wanted === "token") keep(answer.answer);
  else mode = "session";
  showAnswer(wanted === "token" ? { ...answer.answer, accessToken: shortened(answer.answer.accessToken) } : answer.answer);
  await whoAmI();
  byId("who").focus();
}

const shortened = (text) => (text?.length > 40 ? `${text.slice(0, 40)}…` : text);

async function logOut() {
  const answer = await send("POST", "/auth/logout", { cookies: true });
  showAnswer(answer.answer);
  showHeaders();
  if (!answer.ok) return complain(answer);
  nobody();
  byId("who").focus();
}

// sendRevoked makes a token for somebody, uses it, revokes it, and uses it
// again. As for a mobile application, no cookie is involved.
async function sendRevoked() {
  const { email, password } = people.find(({ name }) => name === "Bob");
  const login = await send("POST", "/auth/token", {
    body: { email, password, client: "mobile" }, headers: { authorization: "" }, cookies: false, note: ` as ${email}`,
  });
  if (!login.ok) {
    showAnswer(login.answer);
    return complain(login);
  }
  const { accessToken, refreshToken } = login.answer;
  await send("GET", "/orders", bearer(accessToken, " with that token"));
  for (const [kind, text] of [["access", accessToken], ["refresh", refreshToken]]) {
    await send("POST", "/auth/revoke", { body: new URLSearchParams({ token: text }), headers: { authorization: "" }, cookies: false, note: `, the ${kind} token` });
  }
  await call("/orders", bearer(accessToken, " with that token, which has not expired"));
}

async function switchOrganization() {
  const answer = await asMe("PATCH", "/auth/session", { body: { organizationId: byId("organization").value } });
  if (!answer.ok) {
    showAnswer(answer.answer);
    return complain(answer);
  }
  await call("/orders"); // the next call is made in the new organization
  await whoAmI();
}

function each(selector, act) {
  for (const button of document.querySelectorAll(selector)) whenPressed(button, act);
}

async function start() {
  document.querySelector("main").hidden = false;
  const state = await (await fetch("/demo/state", { credentials: "omit" })).json();
  byId("store").textContent = state.store;
  people = state.people;
  byId("people").replaceChildren(...people.map((person) => {
    const button = element("button", { type: "button", class: "quiet person" }, person.name,
      element("small", {}, person.about), element("small", {}, "password ", element("code", {}, person.password)));
    button.addEventListener("click", () => {
      byId("email").value = person.email;
      byId("password").value = person.password;
      byId("login").querySelector("[type=submit]").focus();
    });
    return button;
  }));

  whenPressed(byId("login"), logIn, "submit");
  whenPressed(byId("switch"), switchOrganization, "submit");
  whenPressed(byId("logout"), logOut);
  whenPressed(byId("reload"), whoAmI);
  whenPressed(byId("refresh"), async () => {
    if (await refresh()) await whoAmI();
  });
  whenPressed(byId("revoke-mine"), async () => {
    const answer = await send("POST", "/auth/revoke", { body: new URLSearchParams({ token: token.raw }), cookies: false, note: ", the access token" });
    showAnswer(answer.answer);
    showHeaders();
  });
  each("[data-call]", (button) => call(button.dataset.call));
  each("[data-spoof]", () => call("/users/echo", { headers: { "x-user-id": "root", "x-user-roles": '["admin"]' }, note: ' with x-user-id: root and x-user-roles: ["admin"]' }));
  each("[data-forge]", () => call("/orders", bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", " with a token that says alg: none")));
  each("[data-revoked]", sendRevoked);

  // After a reload: a session's cookie, or a refresh token's, or neither.
  const me = await send("GET", "/auth/me", { silent: true });
  if (me.status === 401) await refresh(true);
  await whoAmI();
}

start();
