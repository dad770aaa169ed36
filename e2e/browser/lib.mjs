// What the browser tests share: pages that remember everything that went wrong
// in them, people who log in, and checks that every view has to pass.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const load = createRequire(`${process.env.GATEHOUSE_NODE_MODULES}/`);
const { chromium } = load("playwright-core");
const { createClient } = load("redis");

export const gateway = process.env.GATEWAY; // http://127.0.0.1:…
export const people = await (await fetch(`${gateway}/demo/state`)).json().then(({ people }) => Object.fromEntries(
  people.map((person) => [person.name.toLowerCase(), person]),
));

let browser;
test.before(async () => {
  // No sandbox: containers, where these tests run, don't allow one.
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
});
test.after(async () => {
  await browser?.close();
});

// story is a test with a browser: body gets a function that opens a page in a
// browser of its own. At the end each page must have had no error.
export function story(name, body) {
  test(name, { timeout: 120_000 }, async (t) => {
    const opened = [];
    const open = async (path, options) => {
      const page = await openPage(options);
      opened.push(page);
      await page.goto(gateway + path);
      return page;
    };
    try {
      await body(open, t);
      for (const page of opened) page.mustBeClean();
    } catch (error) {
      for (const page of opened) t.diagnostic(`${page.url()}: ${page.faults.join("; ") || "no faults"}`);
      throw error;
    } finally {
      await Promise.all(opened.map((page) => page.context().close()));
    }
  });
}

async function openPage(options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1100, height: 900 }, locale: "en-GB", timezoneId: "UTC", ...options,
  });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // The browser itself notes each answer that is no success.
    const refusal = /^Failed to load resource: the server responded with a status of/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !refusal) page.faults.push(`${message.type()}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${gateway}/`)) page.faults.push(`a request to elsewhere: ${request.url()}`);
    for (const { password } of Object.values(people)) {
      if (request.url().includes(password)) page.faults.push("a password in an address");
    }
  });
  page.on("dialog", (dialog) => {
    page.faults.push(`a script dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.mustBeClean = () => assert.deepEqual(page.faults, []);
  return page;
}

// api calls the auth API as somebody, without a browser: their own program on
// another device.
export async function client(person, agent = "curl/8.5.0") {
  const response = await fetch(`${gateway}/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json", "user-agent": agent },
    body: JSON.stringify({ email: person.email, password: person.password }),
  });
  assert.equal(response.status, 200, await response.clone().text());
  const cookie = response.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
  return {
    ask: (path, method = "GET", body) => fetch(gateway + path, {
      method, headers: { cookie, "user-agent": agent, "content-type": "application/json" }, body: body && JSON.stringify(body),
    }),
  };
}

// token logs somebody in for tokens, as a mobile app does.
export async function app(person) {
  const response = await fetch(`${gateway}/auth/token`, {
    method: "POST",
    headers: { "content-type": "application/json", "user-agent": "BankApp/4.2 (Android 16)" },
    body: JSON.stringify({ email: person.email, password: person.password, client: "mobile" }),
  });
  assert.equal(response.status, 200);
  const { accessToken } = await response.json();
  return { ask: (path) => fetch(gateway + path, { headers: { authorization: `Bearer ${accessToken}` } }) };
}

// withRedis gives the store itself, for what other programs do to it.
export async function withRedis(act) {
  const redis = createClient({ url: process.env.REDIS_URL });
  await redis.connect();
  try {
    return await act(redis);
  } finally {
    redis.destroy();
  }
}

// lease is how long what was cached may still be answered when the store has
// gone silent: two and a half heartbeats.
const lease = () => new Promise((done) => setTimeout(done, 1500));

// outage stops the store from answering, its connections open, while act runs. When it
// returns, whoever uses the page is known again: that is a moment after the store is back,
// a longer one on a busy machine.
export async function outage(page, act) {
  const server = await withRedis((redis) => redis.info("server"));
  const pid = Number(/^process_id:(\d+)/m.exec(server)[1]);
  process.kill(pid, "SIGSTOP");
  try {
    await lease();
    await act();
  } finally {
    process.kill(pid, "SIGCONT");
  }
  const back = Date.now() + 15_000;
  while ((await page.request.get(`${gateway}/users/me`)).status() !== 200) {
    assert.ok(Date.now() < back, "the store is back, and nobody is known yet");
    await new Promise((done) => setTimeout(done, 100));
  }
}

// ---- Checks.

// sound checks what every view has to be: named, readable, and no wider than
// the window.
export async function sound(page, what) {
  await page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
  const { wide, faults } = await page.evaluate(inspect);
  assert.ok(wide <= 0, `${what}: ${wide} pixels wider than the window`);
  assert.deepEqual(faults, [], what);
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  await session.detach();
  const named = ["button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "list", "navigation", "dialog", "region"];
  const nameless = nodes.filter((node) => !node.ignored && ["button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "dialog"]
    .includes(node.role?.value) && !node.name?.value?.trim());
  assert.ok(nodes.some((node) => named.includes(node.role?.value)), `${what}: nothing to use`);
  assert.deepEqual(nameless.map((node) => node.role.value), [], `${what}: without a name for screen readers`);
  if (nodes.some((node) => !node.ignored && node.role?.value === "dialog")) return; // all else is out of reach
  const count = (role) => nodes.filter((node) => !node.ignored && node.role?.value === role).length;
  assert.equal(count("main"), 1, `${what}: one main landmark`);
  assert.equal(count("banner"), 1, `${what}: one header`);
}

// inspect runs in the page.
function inspect() {
  const faults = [];
  const visible = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && element.getClientRects().length > 0;

  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) faults.push(`the id ${id} is there twice`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for", "list"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(" ")) {
        if (!document.getElementById(id)) faults.push(`${attribute} names ${id}, which is not there`);
      }
    }
  }
  if (document.querySelector("[tabindex]:not([tabindex='0'], [tabindex='-1'])")) faults.push("a tabindex that changes the order");
  if (!document.documentElement.lang) faults.push("the page has no language");
  const headings = [...document.querySelectorAll("h1, h2, h3")].filter(visible).map(({ localName }) => Number(localName[1]));
  if (headings.filter((level) => level === 1).length !== 1) faults.push(`${headings.filter((level) => level === 1).length} headings of the first level`);
  headings.forEach((level, i) => {
    if (i > 0 && level > headings[i - 1] + 1) faults.push("a heading skips a level");
  });

  // Contrast, WCAG 2.2 AA.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const ground = (element) => {
    if (!element) return rgba("Canvas");
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(element.parentElement));
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !visible(element) || ["SCRIPT", "NOSCRIPT", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const behind = ground(element);
    const front = over(rgba(style.color), behind);
    const [light, dark] = [luminance(front), luminance(behind)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)} of “${node.data.trim().slice(0, 30)}”`);
  }

  // Something to hit with a thumb (WCAG 2.2, 2.5.8: 24 pixels, or inline text).
  for (const element of document.querySelectorAll("button, select, input:not([type=checkbox], [type=radio])")) {
    const { width, height } = element.getBoundingClientRect();
    if (visible(element) && (width < 24 || height < 24)) faults.push(`${element.id || element.textContent} is ${width}×${height} pixels`);
  }
  return { wide: document.documentElement.scrollWidth - document.documentElement.clientWidth, faults };
}

// reachable checks that Tab leads to everything that can be used, that one sees
// where one is, and that it leads out again.
export async function reachable(page, what) {
  const all = await page.evaluate(() => {
    const usable = [...document.querySelectorAll("a[href], button, input, select, summary, pre[tabindex]")]
      .filter((element) => element.checkVisibility({ visibilityProperty: true }));
    usable.forEach((element, i) => { element.dataset.stop = i; });
    const radios = usable.filter(({ type }) => type === "radio").length; // one stop for all
    document.activeElement?.blur();
    return usable.length - Math.max(0, radios - 1);
  });
  const seen = new Set();
  for (let i = 0; i < all + 15; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      return { stop: element.dataset.stop, outlined: outlineStyle !== "none" && parseFloat(outlineWidth) > 0, text: element.outerHTML.slice(0, 80) };
    });
    if (at.stop === undefined) continue;
    assert.ok(at.outlined, `${what}: one can't see that the focus is on ${at.text}`);
    seen.add(at.stop);
  }
  assert.equal(seen.size, all, `${what}: what Tab leads to`);
}

// looks are the ways in which people look at a page.
export const looks = {
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  phone: { viewport: { width: 360, height: 740 }, colorScheme: "light" },
  "dark phone, 320 pixels": { viewport: { width: 320, height: 640 }, colorScheme: "dark", reducedMotion: "reduce" },
};
