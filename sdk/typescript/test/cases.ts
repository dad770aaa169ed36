// The cases that the packages for Go, TypeScript and Python have in common.
import { readFileSync } from "node:fs";

import type { Options } from "@gatehouse-auth/usercontext";

type Text = string | { repeat: string; times: number };
interface CaseOptions {
  names?: Options["names"];
  maxBytes?: number;
}
interface Written {
  users: {
    name: string;
    options?: CaseOptions;
    headers: [Text, Text][];
    want: "user" | "anonymous" | "malformed" | "forbidden";
    user?: { userId: Text; email: Text; roles: string[]; organizationId: Text };
    service?: string;
    requireRole?: string[];
  }[];
  keys: { name: string; now: string; options?: CaseOptions; keys: string[]; headers: [Text, Text][]; admitted: boolean }[];
  texts: { text: string; sha256?: string; expires?: string; refused?: string }[];
  impossible: CaseOptions[];
}

export const file = process.env["USERCONTEXT_CONTRACT"] ?? new URL("../../../services/usercontext/testdata/contract.json", import.meta.url);
export const contract = JSON.parse(readFileSync(file, "utf8")) as Written;

export function text(t: Text): string {
  return typeof t === "string" ? t : t.repeat.repeat(t.times);
}

/** As node:http would have them in rawHeaders. */
export function raw(headers: [Text, Text][]): string[] {
  return headers.flatMap(([name, value]) => [text(name), text(value)]);
}

export function options(o: CaseOptions | undefined): Options {
  return (o ?? {}) as Options;
}

export const STATUS = { user: 200, anonymous: 401, malformed: 400, forbidden: 403 } as const;
export const ANSWER = { 400: '{"error":"Bad request"}', 401: '{"error":"No token provided"}', 403: '{"error":"Forbidden"}' };

export function wanted(user: Written["users"][number]["user"]): unknown {
  return user && { userId: text(user.userId), email: text(user.email), roles: user.roles, organizationId: text(user.organizationId) };
}
