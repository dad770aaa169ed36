// What the page is made of. Text that came from anywhere else goes into the
// document as text only.

export const byId = (id) => document.getElementById(id);

// element makes an element with attributes (a false or missing value leaves
// one out; onclick takes a function) and children: elements, or text.
export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key === "onclick") {
      made.addEventListener("click", value);
    } else if (value !== undefined && value !== false) {
      made.setAttribute(key, value);
    }
  }
  made.append(...children.filter((child) => child !== undefined && child !== false));
  return made;
}

// visible writes out what can't be seen: control characters, line ends of any kind,
// fillers, and those that turn the direction of writing round, by which an id could
// look like another.
const visible = (text) => String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

// foreign shows text that somebody else wrote, isolated so that right-to-left
// text in it can't reorder what stands around it.
export const foreign = (text, kind) => element("bdi", { class: kind }, visible(text));

// marked shows text of ours, in which only code stands out: `like this`.
export const marked = (text) => text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part));

// become has what is shown become what was made, and leaves alone what is the same:
// the focus, and where a screen reader is, stay where they are.
export function become(shown, made) {
  if (shown.nodeType !== made.nodeType || shown.nodeName !== made.nodeName) return shown.replaceWith(made);
  if (shown.nodeType === Node.TEXT_NODE) {
    if (shown.data !== made.data) shown.data = made.data;
    return;
  }
  for (const { name } of [...shown.attributes]) if (!made.hasAttribute(name)) shown.removeAttribute(name);
  for (const { name, value } of made.attributes) if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  const before = [...shown.childNodes], after = [...made.childNodes];
  before.slice(after.length).forEach((node) => node.remove());
  after.forEach((node, i) => (before[i] ? become(before[i], node) : shown.append(node)));
}

// terms fills a definition list with [term, description] pairs.
export function terms(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([term, ...description]) => [
    element("dt", {}, term),
    element("dd", {}, ...description),
  ]));
}

// pressing returns a listener that does something once at a time: a second
// press while the first is under way is ignored. The button stays focusable.
export function pressing(button, act) {
  return async (event) => {
    event?.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      await act(event);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  };
}

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const units = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000]];

// moment shows a time of the API: how long ago, and when. null is unknown.
export function moment(text) {
  const at = text ? new Date(text) : null;
  if (!at || Number.isNaN(at.getTime())) return "unknown";
  const past = at.getTime() - Date.now();
  const [unit, length] = units.find(([, length]) => Math.abs(past) >= length) ?? ["second", 1000];
  const near = unit === "second" ? "just now" : relative.format(Math.round(past / length), unit);
  return element("time", { datetime: at.toISOString() }, near, " ", element("span", {}, day.format(at)));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// timeOfDay shows a time of the API in a list of what happens now.
export function timeOfDay(text) {
  const at = new Date(text);
  return element("time", { datetime: at.toISOString(), title: day.format(at) }, clock.format(at));
}

const number = new Intl.NumberFormat();
export const count = (n, one, many) => (one ? `${number.format(n)} ${n === 1 ? one : many}` : number.format(n));

// seconds shows a length of time as people say it.
export function seconds(s) {
  if (s < 1) return `${number.format(Number((s * 1000).toPrecision(2)))} ms`;
  for (const [unit, length] of [["day", 86_400], ["hour", 3600], ["minute", 60]]) {
    if (s >= length) return count(Math.floor(s / length), unit, `${unit}s`);
  }
  return count(Math.floor(s), "second", "seconds");
}

const browsers = [["Edge", /\bEdg(?:e|A|iOS)?\//], ["Opera", /\bOPR\//], ["Firefox", /\b(?:Firefox|FxiOS)\//],
  ["Chrome", /\b(?:Chrome|CriOS|HeadlessChrome)\//], ["Safari", /\bSafari\//]];
const systems = [["iPhone", /\biPhone\b/], ["iPad", /\biPad\b/], ["Android", /\bAndroid\b/], ["Windows", /\bWindows\b/],
  ["ChromeOS", /\bCrOS\b/], ["macOS", /\bMac OS X\b/], ["Linux", /\bLinux\b/]];

// deviceName guesses what a user agent is, for people. It is what the client
// said of itself, and proves nothing.
export function deviceName(agent) {
  if (!agent) return "Unknown device";
  const named = (list) => list.find(([, pattern]) => pattern.test(agent))?.[0];
  const browser = named(browsers), system = named(systems);
  if (browser && system) return `${browser} on ${system}`;
  return browser ?? /^[\w.-]{1,40}(?=$|[\s/])/.exec(agent)?.[0] ?? "Unknown device";
}
