// The console, as administrators use it.

import assert from "node:assert/strict";
import { app, client, gateway, looks, outage, people, reachable, sound, story, withRedis } from "./lib.mjs";

const { alice, bob, carol } = people;
const press = (page, name) => page.getByRole("button", { name, exact: true }).click();
const problem = (page, text) => page.getByRole("alert").getByText(text).waitFor();
const outcome = (page, text) => page.locator("#outcome").getByText(text).waitFor();
const title = (page, name) => page.getByRole("heading", { name, level: 1 }).waitFor();
const focused = (page) => page.evaluate(() => document.activeElement.id);
const rows = (page, list) => page.getByRole("list", { name: list, exact: true }).getByRole("listitem");

async function logIn(page, person) {
  await title(page, "Log in");
  await page.getByLabel("Email address").fill(person.email);
  await page.getByLabel("Password").fill(person.password);
  await press(page, "Log in");
  await page.locator("#account-name").getByText(person.email).waitFor();
}

// asAdmin opens the console at a view, as Alice.
async function asAdmin(open, view = "", options = {}) {
  const page = await open(`/auth/console${view}`, options);
  await logIn(page, alice);
  return page;
}

const user = (id) => `#/user/${encodeURIComponent(id)}`;

story("logging in, wrong and right", async (open) => {
  const page = await open("/auth/console");
  await title(page, "Log in");
  assert.equal(await focused(page), "email");
  await page.keyboard.type(alice.email);
  await page.keyboard.press("Tab");
  await page.keyboard.type("nobody's password");
  await page.keyboard.press("Enter");
  await problem(page, "don't belong together");
  assert.equal(await focused(page), "password");
  assert.equal(await page.getByLabel("Password").inputValue(), "");
  await page.keyboard.type(alice.password);
  await page.keyboard.press("Enter");
  await title(page, "Users");
  assert.equal(await focused(page), "users-title");
  assert.equal(await page.getByRole("alert").textContent(), "", "the complaint is gone");
  assert.equal(await page.evaluate(() => document.cookie), "", "the cookie is for the browser only");
  await press(page, "Log out");
  await title(page, "Log in");
  await outcome(page, "You are logged out.");
  await page.reload();
  await title(page, "Log in");
});

story("who guesses is told how long to wait", async (open) => {
  const page = await open("/auth/console");
  await title(page, "Log in");
  for (let tries = 0; ; tries++) {
    assert.ok(tries < 30, "guessing is never slowed down");
    await page.getByLabel("Email address").fill("mallory@example.com");
    await page.getByLabel("Password").fill(`guess ${tries}`);
    const answered = page.waitForResponse((response) => response.url().endsWith("/auth/login"));
    await press(page, "Log in");
    if ((await answered).status() === 429) break;
  }
  await problem(page, /Too many tries. Try again in \d+ seconds?\./);
});

story("from login to a new role with nothing but the keyboard", async (open) => {
  const theirs = await client(bob);
  const page = await open("/auth/console");
  await title(page, "Log in");
  const type = (text) => page.keyboard.type(text);
  const key = async (...names) => {
    for (const name of names) await page.keyboard.press(name);
  };
  const tabTo = async (locator) => {
    for (let i = 0; i < 40; i++) {
      if (await locator.evaluate((element) => element === document.activeElement)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`Tab doesn't lead to ${locator}`);
  };
  await type(alice.email);
  await key("Tab");
  await type(alice.password);
  await key("Enter");
  await title(page, "Users");
  await tabTo(page.getByLabel("Find a user"));
  await type("bob@");
  await key("Enter");
  await page.getByRole("heading", { name: "One user" }).waitFor();
  assert.equal(await focused(page), "found");
  await key("Tab", "Enter");
  await title(page, "bob");
  assert.equal(await focused(page), "user-title");
  await page.locator("#identity").getByText(bob.email).waitFor();

  assert.equal((await theirs.ask("/users/admin/stats")).status, 403);
  await tabTo(page.getByLabel("Another role"));
  await type("admin");
  await key("Enter");
  assert.equal(await focused(page), "role", "there may be more");
  await tabTo(page.getByRole("button", { name: "Apply" }));
  await key("Space");
  await outcome(page, /^Changed, in \d+ sessions?\./);
  assert.equal((await theirs.ask("/users/admin/stats")).status, 200);

  await tabTo(page.getByRole("link", { name: "My sessions" })); // once around
  await tabTo(page.getByRole("button", { name: "Take away the role admin" }));
  await key("Enter");
  await tabTo(page.getByRole("button", { name: "Apply" }));
  await key("Enter");
  await page.locator("#identity").getByText("member", { exact: true }).waitFor();
  assert.equal((await theirs.ask("/users/admin/stats")).status, 403);
});

story("another organization, seen at the user's next request", async (open) => {
  const theirs = await client(bob), phone = await app(bob);
  const org = async (who) => (await (await who.ask("/users/me")).json()).user.organizationId;
  const page = await asAdmin(open, user("bob"));
  await page.locator("#identity").getByText(bob.email).waitFor();
  const before = await page.getByLabel("Organization").inputValue();
  await page.getByLabel("Organization").fill("org-9");
  await press(page, "Apply");
  await outcome(page, /^Changed/);
  assert.deepEqual([await org(theirs), await org(phone)], ["org-9", "org-9"]);
  await press(page, "Apply");
  await outcome(page, "There is nothing to change.");
  await page.getByLabel("Organization").fill(before);
  await press(page, "Apply");
  await outcome(page, /^Changed/);
  assert.deepEqual([await org(theirs), await org(phone)], [before, before]);
});

story("locked out in the middle of a session, and back", async (open) => {
  const theirs = await client(bob);
  const page = await asAdmin(open, user("bob"));
  await page.getByText("active", { exact: true }).waitFor();
  await page.getByLabel("Locked out").check();
  await press(page, "Apply");
  await page.getByText("locked out", { exact: true }).waitFor();
  assert.equal((await theirs.ask("/users/me")).status, 401);
  const other = await open("/auth/console");
  await other.getByLabel("Email address").fill(bob.email);
  await other.getByLabel("Password").fill(bob.password);
  await press(other, "Log in");
  await problem(other, "the account is locked");
  await page.getByLabel("Locked out").uncheck();
  await press(page, "Apply");
  await page.getByText("active", { exact: true }).waitFor();
  assert.equal((await (await client(bob)).ask("/users/me")).status, 200);
});

story("one session ends, the others go on", async (open) => {
  const lost = await client(bob, "LostPhone/7.1"), kept = await client(bob, "Laptop/2.0"), phone = await app(bob);
  const page = await asAdmin(open, user("bob"));
  await rows(page, "Sessions").filter({ hasText: "LostPhone/7.1" }).getByRole("button", { name: "End" }).click();
  await outcome(page, "Ended.");
  assert.equal(await focused(page), "sessions-title");
  assert.equal(await rows(page, "Sessions").filter({ hasText: "LostPhone/7.1" }).count(), 0);
  assert.equal((await lost.ask("/users/me")).status, 401);
  assert.equal((await kept.ask("/users/me")).status, 200);
  assert.equal((await phone.ask("/users/me")).status, 200);
  await rows(page, "Token logins").filter({ hasText: "BankApp" }).first().getByRole("button", { name: "End" }).click();
  await outcome(page, "Ended.");
  assert.equal(await focused(page), "tokens-title");
  assert.equal((await kept.ask("/users/me")).status, 200);
});

story("everything is revoked, after a question", async (open) => {
  const theirs = await client(bob), phone = await app(bob);
  const page = await asAdmin(open, user("bob"));
  await page.locator("#identity").getByText(bob.email).waitFor();
  const dialog = page.getByRole("dialog", { name: "Revoke everything?" });
  const closed = async () => {
    await dialog.waitFor({ state: "hidden" });
    await page.locator("#revoke:not([aria-disabled])").waitFor();
  };
  await press(page, "Revoke everything…");
  await dialog.getByText("bob ends now.").waitFor();
  assert.equal(await focused(page), "confirm-no", "the harmless answer comes first");
  await page.keyboard.press("Escape");
  await closed();
  assert.equal(await focused(page), "revoke", "back where it came from");
  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await page.keyboard.press("Enter"); // Cancel
  await closed();
  assert.equal((await theirs.ask("/users/me")).status, 200);
  assert.equal((await phone.ask("/users/me")).status, 200);

  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await outcome(page, /^Revoked [1-9]\d* sessions\./);
  assert.equal(await focused(page), "sessions-title");
  await page.getByText("No sessions.").waitFor();
  await page.getByText("Nobody is logged in with a token.").waitFor();
  assert.equal((await theirs.ask("/users/me")).status, 401);
  assert.equal((await phone.ask("/users/me")).status, 401);
  assert.equal((await (await client(bob)).ask("/users/me")).status, 200, "a new login is good");
});

story("my own sessions, the one that I use marked", async (open) => {
  await client(carol, "Forgotten/1.0");
  const page = await open("/auth/console");
  await logIn(page, carol);
  await title(page, "My sessions");
  assert.equal(await page.getByRole("link", { name: "Users" }).isVisible(), false, "not for members");
  const list = rows(page, "Sessions");
  await list.filter({ hasText: "this one" }).first().waitFor(); // the list comes after the title
  assert.equal(await list.filter({ hasText: "this one" }).count(), 1);
  await list.filter({ hasText: "Forgotten/1.0" }).getByRole("button", { name: "End" }).click();
  await outcome(page, "Ended.");
  await list.filter({ hasText: "this one" }).getByRole("button", { name: "Log out" }).click();
  await page.getByRole("dialog", { name: "Log out here?" }).getByRole("button", { name: "Log out" }).click();
  await title(page, "Log in");
  await outcome(page, "You are logged out.");
});

story("members see that it is not for them", async (open) => {
  const page = await open(`/auth/console${user("alice")}`);
  await logIn(page, carol);
  await title(page, "For administrators");
  await page.getByText("You are logged in as carol@example.com").waitFor();
  await press(page, "Try again");
  await title(page, "For administrators");
  await page.getByRole("link", { name: "My sessions" }).click();
  await title(page, "My sessions");
  await page.goBack();
  await press(page, "Log in as somebody else");
  await logIn(page, alice);
  await title(page, "alice"); // where she wanted to go
});

story("an administrator who takes the own role away is warned", async (open) => {
  const page = await asAdmin(open, user("alice"));
  await page.getByRole("heading", { name: "alice you" }).waitFor();
  await press(page, "Take away the role admin");
  await press(page, "Apply");
  const dialog = page.getByRole("dialog", { name: "Lock yourself out?" });
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await dialog.waitFor({ state: "hidden" });
  await press(page, "Refresh");
  await page.locator("#identity").getByText("admin", { exact: true }).waitFor();
});

story("finding: by a part, by the exact id, nobody", async (open) => {
  const page = await asAdmin(open);
  const find = async (text) => {
    await page.getByLabel("Find a user").fill(text);
    await press(page, "Find");
  };
  await find("EXAMPLE.com");
  await page.getByRole("heading", { name: "3 users" }).waitFor();
  await find("nobody-has-this");
  await page.getByRole("heading", { name: "Nobody found" }).waitFor();
  await page.getByRole("link", { name: "Open the user whose id is nobody-has-this" }).click();
  await title(page, "nobody-has-this");
  await page.getByText("There is no profile and no session of this user.").waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: "Nobody found" }).waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: "3 users" }).waitFor();
  await page.getByRole("link", { name: /^carol / }).click();
  await title(page, "carol");
  await page.reload();
  await title(page, "carol");
  await page.locator("#identity").getByText(carol.email).waitFor();

  await page.route("**/auth/users?*", (route) => route.fulfill({ status: 404, json: { error: "Not found" } }));
  await page.getByRole("link", { name: "Users", exact: true }).click();
  await find("dora");
  await page.getByRole("heading", { name: "The user store here can't be searched" }).waitFor();
  await page.getByRole("link", { name: "Open the user whose id is dora" }).waitFor();
});

story("an id that no gateway lets through can still be revoked", async (open) => {
  const id = "corp/eve";
  await withRedis((redis) => redis.set("sess:of-an-id-with-a-slash", JSON.stringify({ cookie: { originalMaxAge: 60000 }, userId: id }), { EX: 60 }));
  const page = await asAdmin(open, user(id));
  await problem(page, "An id with a slash can't be looked up");
  await press(page, "Revoke everything…");
  await page.getByRole("dialog").getByRole("button", { name: "Revoke everything" }).click();
  await outcome(page, "Revoked 1 sessions.");
});

story("whatever others wrote is shown as text", async (open) => {
  const id = "\u202Eecila<b>x", agent = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  await withRedis((redis) => redis.set("sess:hostile-but-harmless", JSON.stringify({
    cookie: { originalMaxAge: 60000 }, userId: id, email: "\"><script>alert(3)</script>", roles: ["</span><b>admin"], organizationId: "org\u0007",
  }), { EX: 60 }));
  await client(carol, agent);
  const page = await asAdmin(open, user(id));
  await page.getByRole("heading", { name: "\\u{202e}ecila<b>x" }).waitFor();
  await page.getByText("</span><b>admin").first().waitFor();
  await page.getByText("org\\u{7}").first().waitFor();
  assert.equal(await rows(page, "Sessions").count(), 1, "a session that another program wrote");
  await page.goto(`${gateway}/auth/console${user("carol")}`);
  await page.getByText(agent).waitFor();
  const alive = await page.evaluate(() => document.querySelectorAll("main img, main script, main b").length);
  assert.equal(alive, 0);
});

story("the page can't be made to run what it didn't bring", async (open) => {
  const page = await open("/auth/console");
  await title(page, "Log in");
  const outcomes = await page.evaluate(async () => {
    const attempt = async (act) => {
      try {
        await act();
        return "taken";
      } catch {
        return "refused";
      }
    };
    return {
      markup: await attempt(() => { document.createElement("p").innerHTML = "<b>x</b>"; }),
      handler: await attempt(() => document.createElement("img").setAttribute("onerror", "window.ran = true")),
      script: await attempt(() => { document.createElement("script").textContent = "window.ran = true"; }),
      elsewhere: await attempt(() => fetch("http://127.0.0.1:9/", { mode: "no-cors" })),
      framed: await attempt(() => new Promise((resolve, reject) => {
        const frame = document.createElement("iframe");
        document.addEventListener("securitypolicyviolation", reject, { once: true });
        frame.onload = resolve;
        frame.src = "/auth/console";
        document.body.append(frame);
      })),
      ran: window.ran ?? false,
    };
  });
  assert.deepEqual(outcomes, { markup: "refused", handler: "refused", script: "refused", elsewhere: "refused", framed: "refused", ran: false });
  page.faults.length = 0; // it was provoked
});

story("a session that ends under way: log in, and go on there", async (open) => {
  const page = await asAdmin(open, user("carol"));
  await page.locator("#identity").getByText(carol.email).waitFor();
  await page.context().clearCookies();
  await press(page, "Refresh");
  await title(page, "Log in");
  await problem(page, "You are not logged in any more.");
  await logIn(page, alice);
  await title(page, "carol");
  await page.locator("#identity").getByText(carol.email).waitFor();
});

story("an outage logs nobody out and says so", async (open) => {
  const page = await asAdmin(open, user("carol"));
  await page.locator("#identity").getByText(carol.email).waitFor();
  await outage(page, async () => {
    await press(page, "Refresh");
    await problem(page, /can't reach its store.*Try again/);
    await title(page, "carol");
    await press(page, "Revoke everything…");
    await page.getByRole("dialog").getByRole("button", { name: "Revoke everything" }).click();
    await problem(page, /can't reach its store/);
    await press(page, "Log out");
    await problem(page, "The logout failed: you are still logged in.");
    await page.reload();
    await title(page, "Who you are can't be found out right now");
    await sound(page, "in an outage");
  });
  await press(page, "Try again");
  await title(page, "carol");
});

story("every refusal is said in words, with what to do", async (open) => {
  const page = await asAdmin(open, user("carol"));
  await page.locator("#identity").getByText(carol.email).waitFor();
  for (const [answer, words] of [
    [{ status: 503, json: { error: "Not confirmed" } }, "not all replicas of the store have confirmed it. Do it again"],
    [{ status: 503, headers: { "retry-after": "1" }, json: { error: "Authentication unavailable" } }, "Try again in 1 second."],
    [{ status: 429, headers: { "retry-after": "17" }, json: { error: "Too many requests" } }, "Try again in 17 seconds."],
    [{ status: 403, json: { error: "Forbidden" } }, "It takes the role “admin”"],
    [{ status: 404, json: { error: "Not found" } }, "not there, or not any more"],
    [{ status: 400, json: { error: "Bad request" } }, "Check what you entered"],
    [{ status: 502, contentType: "text/html", body: "<h1>Bad gateway</h1>" }, "an error (502)"],
    ["aborted", "The gateway doesn't answer."],
  ]) {
    await page.route("**/auth/revoke-all-sessions", (route) => (answer === "aborted" ? route.abort() : route.fulfill(answer)));
    await press(page, "Revoke everything…");
    await page.getByRole("dialog").getByRole("button", { name: "Revoke everything" }).click();
    await problem(page, words);
    await page.unroute("**/auth/revoke-all-sessions");
  }
  page.faults = page.faults.filter((fault) => !fault.includes("net::ERR_FAILED")); // the aborted one
});

story("single sign-on is offered where there is some", async (open) => {
  const page = await open("/");
  await page.route("**/auth/console/settings.json", (route) => route.fulfill({ json: { title: "Staging", providers: ["corp"], passwords: false } }));
  await page.goto(`${gateway}/auth/console`);
  const link = page.getByRole("link", { name: "Log in with corp" });
  assert.equal(await link.getAttribute("href"), "/auth/oidc/corp/login?return_to=%2Fauth%2Fconsole");
  await page.getByText("Staging").waitFor();
  assert.equal(await page.getByLabel("Password").isVisible(), false);
});

const decisions = (page) => page.locator("#decisions > li:not([hidden])");
const filter = (page, name) => page.locator("#filters").getByLabel(name, { exact: true });
const shown = (page, n) => page.waitForFunction((wanted) => document.querySelectorAll("#decisions > li:not([hidden])").length === wanted, n);
// unheard is a path that nobody has asked for before, below one that is for administrators.
const unheard = () => `/users/admin/${crypto.randomUUID()}`;
const live = (page, text = "Live") => page.locator("#stream-state").getByText(text, { exact: true }).waitFor();

story("why was this denied: seen as it happens, with how far it got and what to do", async (open) => {
  const theirs = await client(bob);
  const page = await asAdmin(open, "#/decisions?user=bob");
  await title(page, "Decisions");
  await live(page);
  const path = unheard();
  const answer = await theirs.ask(`${path}?token=not-for-anybody`);
  assert.equal(answer.status, 403);
  const row = decisions(page).filter({ hasText: path });
  await row.waitFor();
  await row.getByText("denied", { exact: true }).waitFor();
  await row.locator("summary").focus();
  await page.keyboard.press("Enter");
  await row.getByText("The caller has none, or not all, of the roles that the policy asks for.").waitFor();
  await row.getByText("What to do:").waitFor();
  await row.locator("code").getByText("gatehouse sessions set USER roles=a,b", { exact: true }).waitFor();
  const steps = row.getByRole("list", { name: "How far it got" }).getByRole("listitem");
  assert.deepEqual(await steps.evaluateAll((all) => all.map(({ className }) => className)), ["ok", "ok", "ok", "ok", "ok", "refused"]);
  assert.match(await steps.last().textContent(), /What the policy asks:roles – role: none of the roles \["admin"\]/);
  const id = answer.headers.get("x-request-id");
  if (id) await row.getByText(id).waitFor();
  assert.equal(await row.locator("pre").textContent(),
    `gatehouse explain --server 127.0.0.1:9090 --policy admin curl -X GET https://${new URL(gateway).host}${path} -H 'cookie: …'`);
  assert.doesNotMatch(await page.content(), /not-for-anybody/, "no query");
  await sound(page, "an explanation");

  // An allowed one, too, while somebody looks.
  assert.equal((await theirs.ask("/users/me")).status, 200);
  await filter(page, "Show").selectOption("all");
  await decisions(page).filter({ hasText: "/users/me" }).filter({ hasText: "allowed" }).first().waitFor();
  assert.equal(await row.locator("details").evaluate((details) => details.open), true, "what is open stays open");
  await row.getByRole("link", { name: "bob" }).click();
  await title(page, "bob");
  await page.getByRole("link", { name: "Latest decisions about this user" }).click();
  await title(page, "Decisions");
  await decisions(page).filter({ hasText: path }).waitFor();
  await page.goBack();
  await title(page, "bob");
  await page.goBack();
  await title(page, "Decisions");
  assert.equal(await filter(page, "User").inputValue(), "bob");
  assert.equal(await filter(page, "Show").inputValue(), "all");
});

story("decisions by policy, reason, user and request", async (open) => {
  const theirs = await client(carol);
  await theirs.ask("/users/admin/stats");
  await fetch(`${gateway}/users/me`);
  const page = await asAdmin(open, "#/decisions");
  await live(page);
  const all = decisions(page);
  await all.filter({ hasText: "carol" }).first().waitFor();
  await all.filter({ hasText: "no credential" }).first().waitFor();
  const only = async (text) => {
    await all.first().waitFor();
    for (const row of await all.allTextContents()) assert.match(row, text);
  };
  await filter(page, "Reason").selectOption({ label: "no credential" });
  await only(/no credential/);
  assert.match(page.url(), /#\/decisions\?reason=no_credential$/);
  await filter(page, "Reason").selectOption("");
  await filter(page, "Policy").selectOption("admin");
  await only(/role|admin/);
  await filter(page, "User").fill("CAR");
  await only(/carol/);
  await filter(page, "Request id").fill("no request has this id");
  await shown(page, 0);
  await page.locator("#decisions-count").getByText("0 decisions").waitFor();
  await page.reload();
  await live(page);
  assert.equal(await filter(page, "User").inputValue(), "CAR", "the address has the filters");
  assert.equal(await filter(page, "Policy").inputValue(), "admin");
});

story("paused, nothing moves; going on, nothing is missing", async (open) => {
  const theirs = await client(bob);
  const page = await asAdmin(open, "#/decisions?policy=admin&user=bob");
  await live(page);
  const first = unheard();
  await theirs.ask(first);
  await decisions(page).filter({ hasText: first }).waitFor();
  const before = await decisions(page).count();
  await press(page, "Pause");
  await live(page, "Paused");
  for (let i = 0; i < 3; i++) await theirs.ask(unheard());
  await page.locator("#decisions-count").getByText("3 more since you paused").waitFor();
  assert.equal(await decisions(page).count(), before);
  await press(page, "Go on");
  await shown(page, before + 3);
  await live(page);
});

story("the stream ends, and goes on without a gap or a row twice", async (open) => {
  const theirs = await client(bob);
  const page = await asAdmin(open, "#/decisions?policy=admin&user=bob");
  await live(page);
  const first = unheard(), second = unheard();
  await theirs.ask(first);
  await decisions(page).filter({ hasText: first }).waitFor();
  await page.waitForRequest((request) => request.url().endsWith("/auth/decisions") && Boolean(request.headers()["last-event-id"]), { timeout: 30_000 });
  await theirs.ask(second);
  await decisions(page).filter({ hasText: second }).waitFor();
  assert.equal(await decisions(page).filter({ hasText: first }).count(), 1);
  const ids = await page.locator("#decisions > li").evaluateAll((all) => all.map((row) => row.dataset.id));
  assert.equal(new Set(ids).size, ids.length);
});

story("what strangers send is shown as text, and can't leave its quotes in a command", async (open) => {
  const page = await asAdmin(open, "#/decisions");
  await live(page);
  await fetch(`${gateway}/users/me/x'$(touch%20pwned)'`, { headers: { "x-request-id": "<img src=x>" } });
  const row = decisions(page).filter({ hasText: "touch" }).first();
  await row.waitFor();
  await row.locator("summary").click();
  const command = await row.locator("pre").textContent();
  assert.ok(command.includes(String.raw` 'https://${new URL(gateway).host}/users/me/x'\''$(touch%20pwned)'\'''`), command);
  assert.equal(await page.evaluate(() => document.querySelectorAll("main img, main script, main b").length), 0);

  // What isn't kept as it was sent can't be asked for again.
  await fetch(`${gateway}/users/me/long/${"x".repeat(600)}`);
  const long = decisions(page).filter({ hasText: "/users/me/long/" }).first();
  await long.waitFor();
  await long.locator("summary").click();
  await long.getByText("there is no command that asks for it again").waitFor();
  assert.equal(await long.locator("pre").count(), 0);

  // A secret by its looks is in no row.
  const token = "eyJ0eXAiOiJKV1QifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
  await fetch(`${gateway}/users/me/confirm/${token}`);
  const confirm = decisions(page).filter({ hasText: "/users/me/confirm/[secret]" }).first();
  await confirm.waitFor();
  await confirm.locator("summary").click();
  await confirm.getByText("there is no command that asks for it again").waitFor();
  assert.doesNotMatch(await page.content(), /eyJ0eXAi/);
});

story("a long pause costs no more than the list does", async (open) => {
  const page = await asAdmin(open, "#/decisions");
  await live(page);
  const rare = "/users/me/rare";
  await fetch(`${gateway}${rare}`);
  await decisions(page).filter({ hasText: rare }).first().waitFor();
  await press(page, "Pause");
  await live(page, "Paused");
  const first = { id: "", time: "2030-01-01T00:00:00.000Z", decision: "deny", reason: "role", wouldDeny: "", means: "", do: "", detail: "", steps: [], policy: "admin",
    credential: "session", method: "GET", host: "h", path: "/", status: 403, requestId: "", user: "flood", session: "", degraded: "", tookMicroseconds: 1 };
  const events = Array.from({ length: 3000 }, (_, i) => ({ ...first, id: `ffffffff-${i + 1}`, path: `/flood/${i + 1}` }))
    .map((data) => `event: decision\nid: ${data.id}\ndata: ${JSON.stringify(data)}\n\n`).join("");
  let served = false;
  await page.route("**/auth/decisions", (route) => {
    if (served) return route.continue();
    served = true;
    return route.fulfill({ contentType: "text/event-stream", body: events });
  });
  await page.locator("#decisions-count").getByText(/3[.,]?\d{3} more since you paused/).waitFor({ timeout: 30_000 });
  let made = 0;
  await page.exposeFunction("rowsWere", (n) => { made = n; });
  await page.evaluate(() => {
    let n = 0;
    new MutationObserver((all) => {
      for (const { addedNodes } of all) n += addedNodes.length;
      rowsWere(n);
    }).observe(document.getElementById("decisions"), { childList: true });
  });
  await press(page, "Go on");
  await decisions(page).filter({ hasText: "/flood/3000" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#decisions > li").length <= 400);
  assert.ok(made > 0 && made <= 500, `${made} rows were made`);
  await decisions(page).filter({ hasText: rare }).first().waitFor(); // a flood pushes out nothing but itself
});

story("health: this replica, its cache, store and policies", async (open) => {
  const theirs = await client(carol);
  await theirs.ask("/users/admin/stats");
  await theirs.ask("/users/me");
  const page = await asAdmin(open);
  await page.getByRole("link", { name: "Health" }).click();
  await title(page, "Health");
  const card = (name) => page.getByRole("region", { name });
  await card(/^Replica/).getByText("ready").waitFor();
  await card(/^Cache/).getByText("coherent").waitFor();
  await card(/^Store/).getByText("up", { exact: true }).waitFor();
  await card(/^Configuration/).getByText("in force").waitFor();
  await card(/^Issuers/).getByText("none are fetched").waitFor();
  await card(/^Replica/).getByText(/^[\d.,]+ a second$/).waitFor(); // after the second look
  const row = page.getByRole("row", { name: /admin/ });
  await row.getByRole("link", { name: "role" }).focus();
  const before = await row.getByRole("cell").nth(1).textContent();
  await theirs.ask("/users/admin/stats");
  await page.waitForFunction((text) => document.activeElement.closest("tr").querySelectorAll("td")[1].textContent !== text, before);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "role", "the focus stays when the figures change");
  assert.match(await row.getByRole("cell").nth(1).textContent(), /[1-9]/);
  await row.getByRole("link", { name: "role" }).click();
  await title(page, "Decisions");
  assert.deepEqual([await filter(page, "Policy").inputValue(), await filter(page, "Reason").inputValue()], ["admin", "role"]);
  await decisions(page).filter({ hasText: "carol" }).first().waitFor();
});

story("health in an outage", async (open) => {
  const page = await asAdmin(open, "#/health");
  await page.getByRole("region", { name: /^Store/ }).getByText("up", { exact: true }).waitFor();
  await page.route("**/auth/status", async (route) => { // an administrator can't be known either then
    const response = await route.fetch();
    const status = await response.json();
    Object.assign(status.store, { state: "down", error: "dial tcp: connection refused", silentServers: 1, refused: { silent: 7 }, outcomes: { ok: 5, timeout: 2 } });
    Object.assign(status.cache, { state: "incoherent", error: "no heartbeat" });
    Object.assign(status.config, { state: "rejected", error: "gatehouse.yaml:3:1: no such key", pendingRestart: ["server.check.listen"] });
    status.issuers = [{ issuer: "https://idp.example.com", keys: 0, lastFetch: null, failures: 3, error: "no answer" }];
    status.policies.push({ name: "trial", mode: "observe", default: true, allowed: 10, denied: {}, observed: { no_credential: 4 }, degraded: { serve_stale: 2 } });
    await route.fulfill({ json: status });
  });
  await press(page, "Refresh");
  for (const text of ["1 server silent", "dial tcp: connection refused", "incoherent", "file rejected", "server.check.listen", "keys missing", "would deny:", "without the store: serve stale 2"]) {
    await page.getByText(text).first().waitFor();
  }
  await sound(page, "health in an outage");
  await page.unroute("**/auth/status");
  await outage(page, async () => {
    await press(page, "Refresh");
    await problem(page, /can't reach its store/);
  });
});

story("members don't see what others do", async (open) => {
  const page = await open("/auth/console#/decisions");
  await logIn(page, carol);
  await title(page, "For administrators");
  for (const name of ["Decisions", "Health"]) assert.equal(await page.getByRole("link", { name, exact: true }).isVisible(), false, name);
  const statuses = await page.evaluate(() => Promise.all(["/auth/decisions", "/auth/status"].map(async (path) => (await fetch(path)).status)));
  assert.deepEqual(statuses, [403, 403]);
});

story("who logs in next sees nothing of what was shown before", async (open) => {
  const theirs = await client(bob);
  await theirs.ask("/users/admin/stats");
  const page = await asAdmin(open, "#/decisions");
  await decisions(page).first().waitFor();
  await page.getByRole("link", { name: "Health" }).click();
  await page.getByText("coherent").waitFor();
  await press(page, "Log out");
  await title(page, "Log in");
  assert.deepEqual(await page.evaluate(() => ["decisions", "health-cards", "policies"].map((id) => document.getElementById(id).childElementCount)), [0, 0, 0]);
});

for (const [name, look] of Object.entries(looks)) {
  story(`every view looks right: ${name}`, async (open) => {
    await client(bob, "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1");
    await app(bob);
    const page = await open("/auth/console", look);
    await title(page, "Log in");
    await sound(page, "the login form");
    await reachable(page, "the login form");
    await page.getByLabel("Email address").fill(alice.email);
    await page.getByLabel("Password").fill("nobody's password");
    await press(page, "Log in");
    await problem(page, "don't belong together");
    await sound(page, "a refusal");
    await logIn(page, alice);
    await page.getByLabel("Find a user").fill("org-2");
    await press(page, "Find");
    await page.getByRole("heading", { name: "3 users" }).waitFor();
    await sound(page, "users");
    await reachable(page, "users");
    await page.getByRole("link", { name: /^bob / }).click();
    await page.getByText("Safari on iPhone").first().waitFor();
    await sound(page, "one user");
    await reachable(page, "one user");
    await press(page, "Revoke everything…");
    await page.getByRole("dialog").getByText("ends now").waitFor();
    await sound(page, "the dialog");
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "Decisions", exact: true }).click();
    await title(page, "Decisions");
    await live(page);
    await fetch(`${gateway}/users/me`);
    await decisions(page).first().waitFor();
    await decisions(page).first().locator("summary").click();
    await page.getByText("What to do:").first().waitFor();
    await press(page, "Pause"); // so that nothing comes while Tab goes round
    await sound(page, "decisions");
    await reachable(page, "decisions");
    await page.getByRole("link", { name: "Health" }).click();
    await page.getByText("coherent").waitFor();
    await sound(page, "health");
    await reachable(page, "health");
    await page.getByRole("link", { name: "My sessions" }).click();
    await page.getByText("this one").waitFor();
    await sound(page, "my sessions");
    await reachable(page, "my sessions");
    if (look.reducedMotion) {
      const moving = await page.evaluate(() => [...document.querySelectorAll("*")].filter((element) => {
        const { animationName, transitionDuration } = getComputedStyle(element);
        return animationName !== "none" || parseFloat(transitionDuration) > 0;
      }).length);
      assert.equal(moving, 0, "nothing moves for those who asked for it");
    }
  });
}

story("the skip link leads past the navigation", async (open) => {
  const page = await asAdmin(open);
  await title(page, "Users");
  await page.reload();
  await title(page, "Users");
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "skip");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "query");
  await title(page, "Users"); // and to no other view
});

story("without JavaScript the page says what it needs", async (open) => {
  const page = await open("/auth/console", { javaScriptEnabled: false });
  await page.locator("noscript h1").waitFor();
  assert.match(await page.locator("noscript").innerHTML(), /The console needs JavaScript/);
  assert.equal(await page.getByRole("button").count(), 0, "no button that does nothing");
});
