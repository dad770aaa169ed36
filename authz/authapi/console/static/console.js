// The console: which view is shown, and what the buttons do. The address after
// # names the view, so that reloading, bookmarks and the back button work:
//
//   #/users, #/users?query=…, #/user/{id}, #/mine, #/decisions?…, #/health

import * as api from "/auth/console/api.js";
import * as decisions from "/auth/console/decisions.js";
import { byId, deviceName, element, foreign, moment, pressing, terms } from "/auth/console/dom.js";
import * as health from "/auth/console/health.js";

const views = ["loading", "unreachable", "login", "forbidden", "users", "user", "decisions", "health", "mine"];
const adminRole = "admin";

let self = null; // who is logged in, as /auth/me says; null: nobody
let shown = null; // the user on the page of one user
let roles = []; // those of the change form
let turn = 0; // counts views: an answer that comes after its view is gone is dropped

const isAdmin = () => self?.roles.includes(adminRole) ?? false;

// ---- What is said to people.

function say(text) {
  byId("problem").textContent = "";
  byId("outcome").textContent = text;
}

function complain(error) {
  if (!(error instanceof api.ApiError)) console.error(error);
  byId("outcome").textContent = "";
  byId("problem").textContent = api.explain(error);
}

function quiet() {
  byId("problem").textContent = "";
  byId("outcome").textContent = "";
}

// ask shows the one dialog, and resolves to whether the answer was yes.
function ask(title, text, yes) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").replaceChildren(...[text].flat());
  byId("confirm-yes").textContent = yes;
  dialog.returnValue = "no"; // what Escape leaves
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// ---- Views.

function show(view, title, { focus = true } = {}) {
  for (const live of [decisions, health]) {
    if (self) live.stop();
    else live.forget();
  }
  for (const name of views) byId(`view-${name}`).hidden = name !== view;
  byId("nav").hidden = byId("account").hidden = !self;
  byId("account-name").textContent = self?.email || self?.userId || "";
  for (const name of ["users", "decisions", "health"]) byId(`nav-${name}`).hidden = !isAdmin();
  for (const [link, of] of [["nav-users", ["users", "user"]], ["nav-decisions", ["decisions"]], ["nav-health", ["health"]], ["nav-mine", ["mine"]]]) {
    if (of.includes(view)) byId(link).setAttribute("aria-current", "page");
    else byId(link).removeAttribute("aria-current");
  }
  document.title = [title, "Gatehouse console"].filter(Boolean).join(" · ");
  if (focus) byId(view === "login" ? "email" : `${view}-title`)?.focus();
}

function route() {
  const [, name = "", rest = ""] = /^#\/(user(?=\/)|users|decisions|health|mine)(.*)$/s.exec(location.hash) ?? [];
  if (name === "user") {
    try {
      const id = decodeURIComponent(rest.slice(1));
      if (id) return { view: "user", id };
    } catch {
      // Half an escape is nobody's id.
    }
    return { view: "users", query: null };
  }
  if (name === "users") return { view: "users", query: new URLSearchParams(rest).get("query") };
  if (name === "decisions") return { view: "decisions", query: new URLSearchParams(rest) };
  return { view: name || (isAdmin() ? "users" : "mine"), query: null };
}

const userLink = (id) => `#/user/${encodeURIComponent(id)}`;

// render shows what the address names. A first view leaves the focus where the
// browser put it.
async function render({ first = false } = {}) {
  const mine = ++turn;
  const at = route();
  const focus = !first;
  if (!self) return show("login", "Log in");
  if (at.view !== "mine" && !isAdmin()) {
    byId("forbidden-name").textContent = self.email || self.userId;
    return show("forbidden", "For administrators", { focus });
  }
  try {
    switch (at.view) {
      case "mine":
        show("mine", "My sessions", { focus });
        await loadMine(mine);
        break;
      case "user":
        byId("user-title").replaceChildren(foreign(at.id));
        byId("identity-decisions").href = `#/decisions?${new URLSearchParams({ only: "all", user: at.id })}`;
        if (shown?.id !== at.id) clearUser();
        byId("view-user").setAttribute("aria-busy", "true");
        show("user", at.id, { focus });
        await loadUser(at.id, mine);
        break;
      case "decisions":
        show("decisions", "Decisions", { focus });
        decisions.start(at.query, failed);
        break;
      case "health":
        show("health", "Health", { focus });
        await health.start(failed);
        break;
      default:
        show("users", "Users", { focus });
        await loadUsers(at.query, mine);
    }
  } catch (error) {
    if (mine === turn) await failed(error);
  } finally {
    byId("view-user").removeAttribute("aria-busy");
  }
}

// failed says what went wrong; who turns out to be logged out gets the form.
async function failed(error) {
  if (error.status === 401 && error.code !== "Invalid credentials") {
    self = null;
    turn++;
    show("login", "Log in");
  }
  complain(error);
}

// doing runs what a button asks for and says how it went.
const doing = (button, act) => button.addEventListener("click", pressing(button, async () => {
  quiet();
  try {
    await act();
  } catch (error) {
    await failed(error);
  }
}));

// submitting does the same for a form.
function submitting(form, act) {
  const run = pressing(form.querySelector("[type=submit]"), async () => {
    quiet();
    try {
      await act();
    } catch (error) {
      await failed(error);
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
}

// ---- Users.

async function loadUsers(query, mine) {
  byId("query").value = query ?? "";
  byId("found").hidden = byId("by-id").hidden = true;
  byId("results").replaceChildren();
  if (query === null) return;
  let users = null;
  try {
    ({ users } = await api.find(query));
  } catch (error) {
    if (error.status !== 404) throw error; // of a user store that can't search
  }
  if (mine !== turn) return;
  byId("results").replaceChildren(...(users ?? []).map((user) => element("li", {},
    element("a", { href: userLink(user.userId) },
      element("strong", {}, foreign(user.userId)),
      user.email ? foreign(user.email) : false,
      element("span", {}, foreign(user.roles.join(", ") || "no roles"), " · ", foreign(user.organizationId || "no organization"))))));
  byId("found").hidden = false;
  byId("found").textContent = users === null ? "The user store here can't be searched"
    : users.length === 0 ? "Nobody found"
    : users.length === 1 ? "One user" : `${users.length} users`;
  if (query && !(users ?? []).some((user) => user.userId === query)) {
    byId("by-id-link").href = userLink(query);
    byId("by-id-link").replaceChildren("Open the user whose id is ", foreign(query, "code"));
    byId("by-id").hidden = false;
  }
}

submitting(byId("search"), async () => {
  const target = `#/users?${new URLSearchParams({ query: byId("query").value.trim() })}`;
  if (location.hash !== target) {
    history.pushState(null, "", target);
  }
  await loadUsers(byId("query").value.trim(), ++turn);
  byId("found").focus();
});

// ---- One user.

function clearUser() {
  shown = null;
  for (const id of ["identity", "sessions", "tokens", "roles"]) byId(id).replaceChildren();
  byId("change").reset();
}

// unreachable are ids that no gateway lets through in an address: what is behind
// an escaped slash, servers read differently.
const unreachable = (id) => /[/\\]/.test(id);

async function loadUser(id, mine) {
  if (unreachable(id)) {
    shown = { id };
    byId("problem").textContent = "An id with a slash can't be looked up: gateways refuse it in an address. Revoking everything works.";
    return;
  }
  const answer = await api.sessionsOf(id);
  if (mine !== turn) return;
  const { user, sessions, tokens } = answer;
  shown = {
    id, sessions, tokens,
    email: user.email, roles: user.roles, organization: user.organizationId, organizations: user.organizations, disabled: user.disabled,
  };
  const isSelf = id === self.userId;
  byId("user-title").replaceChildren(foreign(id), ...(isSelf ? [element("span", { class: "badge" }, "you")] : []));
  identity(byId("identity"), shown);
  byId("identity-note").hidden = Boolean(shown.email || shown.roles.length || shown.organization || shown.sessions.length || shown.tokens.length);
  roles = [...shown.roles];
  drawRoles();
  byId("organization").value = shown.organization;
  byId("organizations").replaceChildren(...shown.organizations.map((value) => element("option", { value })));
  byId("disabled").checked = shown.disabled;
  const end = (login) => api.endOf(id, login.handle);
  logins(byId("sessions"), "sessions-title", shown.sessions, end, "No sessions.", isSelf);
  logins(byId("tokens"), "tokens-title", shown.tokens, end, "Nobody is logged in with a token.", isSelf);
}

function identity(list, user) {
  terms(list, [
    ["Email", user.email ? foreign(user.email) : "unknown"],
    ["Roles", user.roles.length ? foreign(user.roles.join(", ")) : "none"],
    ["Organization", user.organization ? foreign(user.organization) : "none"],
    ["May switch to", user.organizations.length ? foreign(user.organizations.join(", ")) : "no other"],
    ...(user.disabled === undefined ? [] : [["State", user.disabled ? element("span", { class: "badge bad" }, "locked out") : "active"]]),
    ...(user.credential ? [["Logged in by", user.credential]] : []),
  ]);
}

// logins lists sessions or token logins, each with a button that ends it.
function logins(list, heading, all, end, none, isSelf) {
  if (all.length === 0) {
    list.replaceChildren(element("li", { class: "hint" }, none));
    return;
  }
  list.replaceChildren(...all.map((login, i) => {
    const name = `${heading}-${i}`;
    const button = element("button", { class: "quiet", "aria-describedby": name }, login.current && isSelf ? "Log out" : "End");
    doing(button, async () => {
      if (login.current && isSelf && !(await ask("Log out here?", "This is the session that you are using now.", "Log out"))) return;
      await end(login);
      if (login.current && isSelf) return loggedOut("You are logged out.");
      await render({ first: true });
      say("Ended. Its next request is refused.");
      byId(heading).focus();
    });
    return element("li", {},
      element("p", { class: "device", id: name }, foreign(deviceName(login.userAgent)),
        login.current && isSelf ? element("span", { class: "badge" }, "this one") : false),
      button,
      login.userAgent ? element("p", { class: "agent" }, foreign(login.userAgent)) : false,
      facts(login));
  }));
}

function facts(login) {
  const list = element("dl");
  list.append(...[
    ["Address", login.address ? foreign(login.address, "code") : "unknown"],
    ["Created", moment(login.createdAt)],
    ["Last seen", moment(login.lastSeen)],
    ...(login.organizationId ? [["Organization", foreign(login.organizationId)]] : []),
  ].map(([term, description]) => element("div", {}, element("dt", {}, term), element("dd", {}, description))));
  return list;
}

function drawRoles() {
  byId("roles").replaceChildren(...roles.map((role) => element("li", {}, foreign(role),
    element("button", {
      type: "button",
      "aria-label": `Take away the role ${role}`,
      onclick: () => {
        roles = roles.filter((other) => other !== role);
        drawRoles();
        byId("role").focus();
      },
    }, "✕"))));
}

function addRole() {
  const role = byId("role").value.trim();
  if (role && !roles.includes(role)) roles.push(role);
  byId("role").value = "";
  drawRoles();
  byId("role").focus();
}
byId("role-add").addEventListener("click", addRole);
byId("role").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.isComposing && byId("role").value.trim()) {
    event.preventDefault();
    addRole();
  }
});

submitting(byId("change"), async () => {
  addPending();
  if (unreachable(shown.id)) return render({ first: true });
  const changes = {};
  const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  if (!same(roles, shown.roles)) changes.roles = roles;
  const organization = byId("organization").value.trim();
  if (organization !== shown.organization) changes.organizationId = organization;
  if (byId("disabled").checked !== shown.disabled) changes.disabled = byId("disabled").checked;
  if (Object.keys(changes).length === 0) return say("There is nothing to change.");
  const id = shown.id;
  if (id === self.userId && (changes.disabled || (changes.roles && !changes.roles.includes(adminRole)))) {
    if (!(await ask("Lock yourself out?", "This is you. After this change you can't open this page any more.", "Change it"))) return;
  }
  const { changed = 0 } = await api.change(id, changes);
  if (id === self.userId) self = await api.me();
  await render({ first: true });
  say(`Changed, in ${changed} ${changed === 1 ? "session" : "sessions"}. It counts at the user's next request.`);
});

// addPending takes a role that was typed and not added.
function addPending() {
  if (byId("role").value.trim()) addRole();
}

doing(byId("revoke"), async () => {
  const id = shown.id, isSelf = id === self.userId;
  const sure = await ask("Revoke everything?", [
    "Every session, token and token login of ", foreign(id), " ends now.",
    ...(isSelf ? [" This is you: you will be logged out here, too."] : []),
  ], "Revoke everything");
  if (!sure) return;
  const { message } = await api.revokeAll(id);
  if (isSelf) return loggedOut(`${message}, yours among them.`);
  await render({ first: true });
  byId("problem").textContent = "";
  say(`${message}.`);
  byId("sessions-title").focus();
});

doing(byId("health-reload"), () => health.load());
doing(byId("reload"), () => render({ first: true }));

// ---- Mine.

async function loadMine(mine) {
  const [me, answer] = await Promise.all([api.me(), api.mySessions()]);
  if (mine !== turn) return;
  self = me;
  identity(byId("me"), {
    email: me.email, roles: me.roles, organization: me.organizationId, organizations: me.organizations, credential: me.credential,
  });
  const end = (login) => api.endMine(login.handle);
  logins(byId("my-sessions"), "my-sessions-title", answer.sessions, end, "No sessions.", true);
  logins(byId("my-tokens"), "my-tokens-title", answer.tokens, end, "You are not logged in with a token anywhere.", true);
}

doing(byId("mine-reload"), () => render({ first: true }));

// ---- Coming and going.

submitting(byId("login"), async () => {
  const password = byId("password").value;
  byId("password").value = "";
  try {
    await api.login(byId("email").value.trim(), password);
  } catch (error) {
    byId("password").focus();
    throw error;
  }
  await enter({ first: false });
});

function loggedOut(text) {
  self = null;
  clearUser();
  turn++;
  show("login", "Log in");
  say(text);
}

async function leave() {
  await api.logout();
  loggedOut("You are logged out.");
}
doing(byId("logout"), leave);
doing(byId("forbidden-logout"), leave);
doing(byId("forbidden-again"), () => enter({ first: false }));
doing(byId("again"), () => enter({ first: false }));

// enter finds out who is here, and shows what they came for.
async function enter({ first }) {
  try {
    self = await api.me();
  } catch (error) {
    self = null;
    if (error.status === 401) {
      show("login", "Log in");
      return;
    }
    show("unreachable", "", { focus: !first });
    complain(error);
    return;
  }
  await render({ first });
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  byId("main").focus();
  byId("main").scrollIntoView();
});

window.addEventListener("hashchange", () => {
  quiet();
  if (self) render();
});

async function start() {
  byId("view-loading").hidden = false;
  api.settings().then(({ title, providers, passwords }) => {
    byId("installation").textContent = title;
    byId("login").hidden = !passwords;
    byId("providers").hidden = providers.length === 0;
    const back = new URLSearchParams({ return_to: "/auth/console" });
    byId("provider-list").replaceChildren(...providers.map((name) => element("li", {},
      element("a", { class: "button quiet", href: `/auth/oidc/${encodeURIComponent(name)}/login?${back}` }, "Log in with ", foreign(name)))));
  });
  await enter({ first: true });
}

start();
