// The auth API, as the console uses it. The browser sends the session cookie
// and the origin by itself.

// ApiError is an answer other than success. status 0: there was none.
export class ApiError extends Error {
  constructor(status, code, retryAfter) {
    super(code);
    this.status = status;
    this.code = code; // the API's own word for it
    this.retryAfter = retryAfter; // seconds; 0 when the API doesn't say
  }
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "", 0);
  }
  const answer = await bodyOf(response);
  if (!response.ok) throw refusal(response, answer);
  return answer;
}

async function bodyOf(response) {
  try {
    return await response.json();
  } catch {
    return {}; // of a gateway, say. The status has to do.
  }
}

const refusal = (response, answer) =>
  new ApiError(response.status, String(answer?.error ?? ""), Number(response.headers.get("retry-after")) || 0);

const user = (id) => `/auth/users/${encodeURIComponent(id)}/sessions`;

export const me = () => call("GET", "/auth/me");
export const login = (email, password) => call("POST", "/auth/login", { email, password });
export const logout = () => call("POST", "/auth/logout");
export const mySessions = () => call("GET", "/auth/sessions");
export const endMine = (handle) => call("DELETE", `/auth/sessions/${encodeURIComponent(handle)}`);
export const find = (query) => call("GET", `/auth/users?query=${encodeURIComponent(query)}`);
export const sessionsOf = (id) => call("GET", user(id));
export const endOf = (id, handle) => call("DELETE", `${user(id)}/${encodeURIComponent(handle)}`);
export const change = (id, changes) => call("PATCH", user(id), changes);
export const revokeAll = (id) => call("POST", "/auth/revoke-all-sessions", { userId: id });

export const status = () => call("GET", "/auth/status");

// decisions calls back with each event of the stream until it ends, which it does
// every few seconds, or until signal ends it. after is the id of the last event
// that is known.
export async function decisions({ after, signal, on }) {
  try {
    const response = await fetch("/auth/decisions", {
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal,
      headers: { accept: "text/event-stream", ...(after ? { "last-event-id": after } : {}) },
    });
    if (!response.ok) throw refusal(response, await bodyOf(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const fields = Object.fromEntries(event.split("\n").map((line) => /^(\w+): (.*)$/.exec(line)?.slice(1) ?? ["", ""]));
        on(fields.event, JSON.parse(fields.data));
      }
    }
  } catch (error) {
    if (signal.aborted) return;
    throw error instanceof ApiError ? error : new ApiError(0, "", 0);
  }
}

// settings are those of the installation; the console works without them.
export async function settings() {
  try {
    const response = await fetch("/auth/console/settings.json", { credentials: "omit" });
    if (response.ok) return await response.json();
  } catch {
    // as below
  }
  return { title: "", providers: [], passwords: true };
}

function wait(error) {
  if (!error.retryAfter) return "Try again in a while.";
  return `Try again in ${error.retryAfter} ${error.retryAfter === 1 ? "second" : "seconds"}.`;
}

// explain says in plain words what an error means and what to do.
export function explain(error) {
  if (!(error instanceof ApiError)) return "Something in this page went wrong. Reload it and try again.";
  switch (error.status) {
    case 0:
      return "The gateway doesn't answer. Check your connection, then try again: nothing may have been changed.";
    case 400:
      return "Gatehouse doesn't accept that. Check what you entered.";
    case 401:
      return error.code === "Invalid credentials"
        ? "This email address and password don't belong together, or the account is locked."
        : "You are not logged in any more. Log in and do it again: nothing was changed.";
    case 403:
      return "You may not do that. It takes the role “admin”, and a request from this page.";
    case 404:
      return "That is not there, or not any more. Refresh to see what is.";
    case 429:
      return `Too many tries. ${wait(error)}`;
    case 503:
      return error.code === "Not confirmed"
        ? "It was done, but not all replicas of the store have confirmed it. Do it again to be sure."
        : `Gatehouse can't reach its store, so right now it can't know. ${wait(error)}`;
    default:
      return error.code === "Logout failed"
        ? "The logout failed: you are still logged in. Try again."
        : `Gatehouse answered with an error (${error.status}). Try again; if it stays, its log says more.`;
  }
}
