// Reads lists of headers from a file, and says what each is: for TestAllReadTheSame.
import { readFileSync } from "node:fs";

import { MalformedError, readUser } from "@gatehouse-auth/usercontext";

const outcomes = JSON.parse(readFileSync(process.argv[2], "utf8")).map((headers) => {
  try {
    return readUser(headers) ?? "anonymous";
  } catch (error) {
    if (error instanceof MalformedError) return "malformed";
    throw error;
  }
});
console.log(JSON.stringify(outcomes));
