"use strict";

const byId = (id) => document.getElementById(id);
const identity = ["x-user-id", "x-user-email", "x-user-roles", "x-org-id"];

async function answerOf(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function showHeaders(headers) {
  const rows = identity.map((name) => {
    const row = document.createElement("tr");
    for (const text of [name, headers?.[name]?.join(" | ") ?? "(not there)"]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  byId("headers").tBodies[0].replaceChildren(...rows);
}

// call sends one request through the gateway and shows what came of it. The
// echo route tells which headers reached the service for the same caller. With
// a token the cookie stays at home: of two credentials the session decides.
async function call(path, headers = {}) {
  const options = { headers, credentials: headers.authorization ? "omit" : "same-origin" };
  const response = await fetch(path, options);
  const answer = await answerOf(response);
  const sent = Object.entries(headers).map(([k, v]) => ` with ${k}: ${v.length > 40 ? v.slice(0, 40) + "…" : v}`);
  byId("request").textContent = `GET ${path}${sent.join("")} →`;
  byId("status").textContent = `${response.status} ${response.ok ? "allowed" : "refused"}`;
  byId("status").className = response.ok ? "good" : "bad";
  byId("body").textContent = typeof answer === "string" ? answer : JSON.stringify(answer, null, 2);
  let arrived = answer?.headers;
  if (response.ok && !arrived) {
    const echo = await fetch("/users/echo", options);
    arrived = echo.ok ? (await answerOf(echo)).headers : undefined;
  }
  showHeaders(response.ok ? arrived : undefined);
}

async function whoAmI() {
  const response = await fetch("/users/me");
  if (response.ok) {
    const { user } = await response.json();
    byId("me").textContent =
      `${user.email} (${user.userId}), ${user.roles.join(", ") || "no roles"}, in ${user.organizationId}`;
    return;
  }
  const answer = await answerOf(response);
  byId("me").textContent = `Nobody: ${response.status} ${answer?.error ?? ""}`;
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (!response.ok) {
    byId("request").textContent = `POST ${path} →`;
    byId("status").textContent = String(response.status);
    byId("status").className = "bad";
  }
  return response.ok;
}

async function start() {
  const { store, revokedToken } = await (await fetch("/demo/state")).json();
  byId("store").textContent = store;

  const press = (selector, act) =>
    document.querySelectorAll(selector).forEach((button) => button.addEventListener("click", () => act(button)));

  press("[data-login]", async (button) => {
    await post("/demo/login", { user: button.dataset.login });
    await whoAmI();
    await call("/users/me");
  });
  press("[data-logout]", async () => {
    await post("/demo/logout");
    await whoAmI();
    await call("/users/me");
  });
  press("[data-call]", (button) => call(button.dataset.call));
  press("[data-spoof]", () => call("/users/echo", { "x-user-id": "root", "x-user-roles": '["admin"]' }));
  press("[data-forge]", () => call("/orders", { authorization: "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0." }));
  press("[data-revoked]", () => call("/orders", { authorization: `Bearer ${revokedToken}` }));
  await whoAmI();
}

start();
