// The demo page, as its visitors use it.

import assert from "node:assert/strict";
import { app, client, looks, outage, people, reachable, sound, story } from "./lib.mjs";

const { alice, bob, carol } = people;
const me = (page) => page.locator("#me");
const press = (page, name) => page.getByRole("button", { name, exact: true }).click();

// steps waits for what the last button did: the statuses of its calls.
async function steps(page, ...expected) {
  const list = page.locator("#steps:not([aria-busy])");
  await list.waitFor();
  const found = (await list.locator("li").allTextContents()).map((line) => line.replace(/ (allowed|refused)$/, ""));
  assert.deepEqual(found, expected);
}

const header = (page, name) => page.getByRole("row", { name: new RegExp(`^${name} `) }).getByRole("cell").nth(1).textContent();
const body = (page) => page.locator("#body").textContent();

async function logIn(page, person, mode = "A session") {
  await page.getByLabel("Email address").fill(person.email);
  await page.getByLabel("Password").fill(person.password);
  await page.getByLabel(mode).check();
  await press(page, "Log in");
  await page.getByText(person.email, { exact: true }).waitFor();
}

story("a stranger is refused, and sees whom to be", async (open) => {
  const page = await open("/");
  await me(page).getByText("Nobody.").waitFor();
  await press(page, "My profile");
  await steps(page, "GET /users/me → 401");
  assert.equal(JSON.parse(await body(page)).error, "No token provided");
  await page.getByRole("table", { name: "Identity headers at the service" }).waitFor();
  await press(page, "Public");
  await steps(page, "GET /public/hello → 200");
  for (const person of [alice, bob, carol]) {
    assert.match(await page.getByRole("group", { name: "Fill in the form as" }).textContent(), new RegExp(person.password));
  }
  await page.getByRole("button", { name: /^Carol/ }).click();
  await page.keyboard.press("Enter"); // the focus is on the button
  await page.getByText(carol.email, { exact: true }).waitFor();
  assert.equal(await page.getByLabel("Switch to").isVisible(), false, "Carol has one organization");
});

story("a session: with nothing but the keyboard", async (open) => {
  const page = await open("/");
  await me(page).getByText("Nobody.").waitFor();
  await page.getByLabel("Email address").focus();
  await page.keyboard.type(bob.email);
  await page.keyboard.press("Tab");
  await page.keyboard.type(bob.password);
  await page.keyboard.press("Enter");
  await page.getByText("session cookie").waitFor();
  // The focus goes to what is new, which the page does after it has shown it.
  await page.waitForFunction(() => document.activeElement.id === "who");
  assert.equal(await page.evaluate(() => document.cookie), "", "the cookie is for the browser only");

  await press(page, "My organization's orders");
  await steps(page, "GET /orders → 200");
  assert.match(await body(page), /ord-2001/);
  assert.equal(await header(page, "x-org-id"), "org-2");

  await page.getByLabel("Switch to").selectOption("org-1");
  await press(page, "Switch");
  await steps(page, "PATCH /auth/session → 200", "GET /orders → 200");
  assert.match(await body(page), /ord-1001/);
  assert.equal(await header(page, "x-org-id"), "org-1");

  await press(page, "Send x-user-id: root");
  await steps(page, 'GET /users/echo with x-user-id: root and x-user-roles: ["admin"] → 200');
  assert.equal(await header(page, "x-user-id"), "bob");
  assert.equal(await header(page, "x-user-roles"), '["member"]');
  await press(page, "Admin only");
  await steps(page, "GET /users/admin/stats → 403");
  await press(page, "An odd path");
  await steps(page, "GET /users/%2e%2e%2fadmin → 400");
  await press(page, "Send a forged token");
  await steps(page, "GET /orders with a token that says alg: none → 401");

  await press(page, "Log out");
  await me(page).getByText("Nobody.").waitFor();
  await press(page, "My profile");
  await steps(page, "GET /users/me → 401");
});

story("a token: in memory only, refreshed when it is refused", async (open) => {
  const page = await open("/");
  await logIn(page, bob, "A token");
  await page.getByText("expires in 1").waitFor();
  const kept = await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length]);
  assert.deepEqual(kept, ["", 0, 0]);
  await page.getByText("What is in the access token").click();
  const claims = JSON.parse(await page.locator("#claims").textContent());
  assert.equal(claims.sub, "bob");
  assert.doesNotMatch(JSON.stringify(claims), /example\.com"?,?"?roles|bob@|member|org-/, "nothing personal");

  await press(page, "My profile");
  await steps(page, "GET /users/me → 200");
  assert.equal(await header(page, "x-user-id"), "bob");
  await press(page, "Refresh the token");
  await steps(page, "POST /auth/refresh → 200");

  await press(page, "Revoke the access token");
  await steps(page, "POST /auth/revoke, the access token → 200");
  await press(page, "My profile");
  await steps(page, "GET /users/me → 401", "POST /auth/refresh → 200", "GET /users/me → 200");

  await page.getByLabel("Switch to").selectOption("org-1");
  await press(page, "Switch");
  await steps(page, "PATCH /auth/session → 200", "GET /orders → 200");
  assert.equal(await header(page, "x-org-id"), "org-1");
  await page.getByLabel("Switch to").selectOption("org-2"); // as he was: the profile lives on
  await press(page, "Switch");
  await steps(page, "PATCH /auth/session → 200", "GET /orders → 200");

  await page.reload(); // the access token is gone, the refresh token is not
  await page.getByText("expires in 1").waitFor();
  await press(page, "Log out");
  await me(page).getByText("Nobody.").waitFor();
  await page.reload();
  await me(page).getByText("Nobody.").waitFor();
});

story("a revoked token is refused at once", async (open) => {
  const page = await open("/");
  await me(page).getByText("Nobody.").waitFor();
  await press(page, "Send a revoked token");
  await steps(page, `POST /auth/token as ${bob.email} → 200`, "GET /orders with that token → 200",
    "POST /auth/revoke, the access token → 200", "POST /auth/revoke, the refresh token → 200",
    "GET /orders with that token, which has not expired → 401");
  assert.equal(JSON.parse(await body(page)).error, "Invalid token");
});

story("one's own sessions are listed and ended, whatever their devices call themselves", async (open) => {
  const hostile = await client(carol, "<img src=x onerror=alert(1)>\u00a0\"'");
  const phone = await app(carol);
  const page = await open("/");
  await logIn(page, carol);
  const rows = page.getByRole("list", { name: "My sessions" }).getByRole("listitem");
  await rows.filter({ hasText: "<img src=x onerror=alert(1)>" }).getByRole("button", { name: "End" }).click();
  await page.getByText("<img").waitFor({ state: "detached" });
  assert.equal((await hostile.ask("/users/me")).status, 401);
  assert.equal((await phone.ask("/users/me")).status, 200, "only that one");
  await rows.filter({ hasText: "token login" }).getByRole("button", { name: "End" }).click();
  await page.getByText("token login").waitFor({ state: "detached" });
  assert.equal((await phone.ask("/users/me")).status, 401);
  await rows.filter({ hasText: "this one" }).getByRole("button", { name: "End" }).click();
  await me(page).getByText("Nobody.").waitFor();
});

story("a session that somebody else ended", async (open) => {
  const [one, other] = [await open("/"), await open("/", { userAgent: "Kiosk/1.0" })];
  await logIn(one, carol);
  await logIn(other, carol);
  await press(one, "Look again");
  await one.getByRole("list", { name: "My sessions" }).getByRole("listitem").filter({ hasText: "Kiosk" }).getByRole("button", { name: "End" }).click();
  await one.locator("#steps").getByText("DELETE").waitFor();
  await press(other, "My profile");
  await steps(other, "GET /users/me → 401");
  await me(other).getByText("Nobody.").waitFor();
  await press(one, "Log out");
});

story("the console is for administrators", async (open) => {
  const page = await open("/");
  await logIn(page, carol);
  assert.equal(await page.getByRole("link", { name: "open the console" }).isVisible(), false);
  await press(page, "Log out");
  await logIn(page, alice);
  await page.getByRole("link", { name: "open the console" }).click();
  await page.getByRole("heading", { name: "Users" }).waitFor();
});

story("what goes wrong is said in plain words", async (open) => {
  const page = await open("/");
  await me(page).getByText("Nobody.").waitFor();
  await page.getByLabel("Email address").fill(bob.email);
  await page.getByLabel("Password").fill("nobody's password");
  await press(page, "Log in");
  await page.getByRole("alert").getByText("don't belong together").waitFor();
  await logIn(page, carol);
  await outage(page, async () => {
    await press(page, "My profile");
    await steps(page, "GET /users/me → 503");
    assert.match(await me(page).textContent(), /carol/, "nobody is logged out by an outage");
    await press(page, "Log out");
    await page.getByRole("alert").getByText("Logout failed").waitFor();
  });
  await press(page, "My profile");
  await steps(page, "GET /users/me → 200");
  await press(page, "Log out");
  await me(page).getByText("Nobody.").waitFor();
});

for (const [name, look] of Object.entries(looks)) {
  story(`the page looks right: ${name}`, async (open) => {
    const page = await open("/", look);
    await me(page).getByText("Nobody.").waitFor();
    await sound(page, "logged out");
    await reachable(page, "logged out");
    await logIn(page, alice);
    await page.getByText("this one").waitFor();
    await press(page, "Send x-user-id: root");
    await page.getByText("200 allowed").waitFor();
    await sound(page, "logged in");
    await reachable(page, "logged in");
    await press(page, "Log out");
    await me(page).getByText("Nobody.").waitFor();
    await logIn(page, bob, "A token");
    await page.getByText("What is in the access token").click();
    await press(page, "Admin only");
    await page.getByText("403 refused").waitFor();
    await sound(page, "with a token");
    await press(page, "Log out");
    await me(page).getByText("Nobody.").waitFor();
  });
}

story("without JavaScript the page says what to do instead", async (open) => {
  const page = await open("/", { javaScriptEnabled: false });
  await page.locator("noscript p").waitFor();
  assert.match(await page.locator("noscript").innerHTML(), /This page needs JavaScript/);
  assert.equal(await page.getByRole("button").count(), 0, "no button that does nothing");
});
