// Takes the pictures of the documentation. It is no test, but it fails when a
// page doesn't get as far as its picture.

import { app, client, gateway, looks, people, story } from "./lib.mjs";

const { alice, bob } = people;
const directory = process.env.SCREENSHOTS;
const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
const iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1";

const picture = (page, name, fullPage = false) => page.screenshot({ path: `${directory}/${name}.png`, fullPage, animations: "disabled" });

// shown are the pictures that documents use; the others are for looking at.
for (const [suffix, look] of [["", looks.light], ["-dark", looks.dark], ["-phone", looks.phone]]) {
  const whole = suffix !== "";
  if (whole && !process.env.ALL_SCREENSHOTS) continue;

  story(`the demo page${suffix}`, async (open) => {
    const page = await open("/", { ...look, userAgent: firefox });
    await page.getByText("Nobody.").waitFor();
    if (whole) await picture(page, `demo-login${suffix}`, true);
    await page.getByLabel("Email address").fill(alice.email);
    await page.getByLabel("Password").fill(alice.password);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("session cookie").waitFor();
    await page.getByRole("button", { name: "Send x-user-id: root" }).click();
    await page.getByText("200 allowed").waitFor();
    await page.getByRole("cell", { name: '["admin"]' }).waitFor();
    await picture(page, `demo${suffix}`, whole);
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByText("Nobody.").waitFor();
  });

  story(`the console${suffix}`, async (open) => {
    await client(bob, firefox);
    await client(bob, iphone);
    await app(bob);
    const page = await open("/auth/console#/user/bob", look);
    if (whole) await picture(page, `console-login${suffix}`, true);
    await page.getByLabel("Email address").fill(alice.email);
    await page.getByLabel("Password").fill(alice.password);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("Safari on iPhone").first().waitFor();
    await picture(page, `console${suffix}`, whole);

    const theirs = await client(bob, firefox);
    for (const path of ["/users/me", "/users/admin/stats", "/users/me", "/orders/17", "/users/admin/stats"]) await theirs.ask(path);
    for (const path of ["/users/me", "/users/..%2f/me"]) await fetch(gateway + path);
    await page.getByRole("link", { name: "Decisions", exact: true }).click();
    await page.locator("#stream-state").getByText("Live", { exact: true }).waitFor();
    const row = page.locator("#decisions > li:not([hidden])").filter({ hasText: "role" }).first();
    await row.locator("summary").click();
    await row.getByText("What to do:").waitFor();
    await picture(page, `console-decisions${suffix}`, true);
    await page.getByRole("link", { name: "Health" }).click();
    await page.getByText(/ a second$/).waitFor();
    await picture(page, `console-health${suffix}`, true);
    await page.goBack();
    await page.goBack();
    await page.getByText("Safari on iPhone").first().waitFor();
    if (whole) {
      await page.getByRole("button", { name: "Revoke everything…" }).click();
      await picture(page, `console-dialog${suffix}`);
      await page.getByRole("button", { name: "Revoke everything", exact: true }).click();
      await page.getByText(/^Revoked \d+ sessions/).waitFor();
      await picture(page, `console-revoked${suffix}`, true);
      await page.getByRole("link", { name: "Users", exact: true }).click();
      await page.getByRole("button", { name: "Find" }).click();
      await page.getByRole("heading", { name: "3 users" }).waitFor();
      await picture(page, `console-users${suffix}`, true);
    }
  });
}
