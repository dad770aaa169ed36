// Reads request targets and hosts, as JSON from standard input, in the ways of
// JavaScript's servers, and prints what each is read as: by Express's router, by
// serve-static and those who decode segment by segment, and by WHATWG URLs.
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const require = createRequire(process.env.GATEHOUSE_NODE_MODULES + '/');
const express = require('express');

const { closed, open, targets, hosts } = JSON.parse(await new Response(process.stdin).text());
const latin1 = (base64) => Buffer.from(base64, 'base64').toString('latin1');

// Case counts to the gate, so it must to the router (see docs/policies.md).
const router = express.Router({ caseSensitive: true });
for (const prefix of closed) router.use(prefix, (req) => req.done('closed'));
for (const prefix of open) router.use(prefix, (req) => req.done('open'));

const route = (url) =>
  new Promise((done) => router({ method: 'GET', url, done }, {}, () => done('nothing there')));

const attempt = (read) => {
  try {
    return read();
  } catch {
    return null; // such a server answers 400
  }
};

const readings = [];
for (const target of targets) {
  const url = latin1(target);
  const raw = url.split('?')[0];
  readings.push({
    router: await route(url),
    whole: attempt(() => path.posix.normalize(decodeURIComponent(raw))),
    segments: attempt(() => path.posix.normalize(raw.split('/').map(decodeURIComponent).join('/'))),
    whatwg: attempt(() => decodeURIComponent(new URL(url, 'http://service').pathname)),
    windows: attempt(() => path.win32.normalize(decodeURIComponent(raw)).replaceAll('\\', '/')),
  });
}
const names = hosts.map((host) => attempt(() => new URL('http://' + latin1(host)).hostname));
process.stdout.write(JSON.stringify({ readings, names }));
