// Writes cookie-answers.json: what the npm module `cookie`, which Express and
// express-session read cookies with, makes of many Cookie headers. Comma-free
// ones only: Node joins repeated headers by "; ", Envoy by a comma.
//
//   npm install cookie@0.7.2
//   node cookie-answers.mjs > cookie-answers.json
import { parse } from 'cookie'

const name = 'sessionId'
const headers = [
  'sessionId=a', 'sessionId=a; sessionId=b', 'a=1; sessionId=b', 'sessionId=', 'sessionId=; sessionId=b',
  'sessionId', 'sessionId; a=1', 'a=1; sessionId', 'sessionId; sessionId=a', '', ';', '=', '==', ';;', '=sessionId', 'sessionId==', 'sessionId=a=b',
  'sessionId="a"', 'sessionId="a', 'sessionId=a"', 'sessionId="', 'sessionId=""', 'sessionId=" a "', 'sessionId= "a" ', 'a="x; sessionId=b"', 'sessionId="a;b"',
  ' sessionId=a', 'sessionId =a', 'sessionId= a', 'sessionId\t=\ta\t', '\tsessionId=a ', 'a=1;sessionId=b', 'a=1;  sessionId = b ;c=d', 'a=1;sessionId=  ;c=d',
  'SessionId=a', 'SESSIONID=a', 'sessionid=a; sessionId=b', 'xsessionId=a', 'sessionIdx=a', 'x-sessionId=a', 'sessionId.sig=a', 'sessionId2=a; sessionId=b', '__Host-sessionId=a',
  '"sessionId"=a', 'session Id=a', 'sess=sessionId=a', 'sessionId%20=a', '%73essionId=a', 'sessionId[]=a', '$Version=1; sessionId=a; $Path=/',
  'sessionId=s%3Aabc.def', 'sessionId=s%3aabc.def%2Fg%2B', 'a=b; sessionId=s:abc.def', 'a==; sessionId=b', '=a; sessionId=b', 'a; b; sessionId=c', '; sessionId=a', ';;;sessionId=a',
  '\u000bsessionId=a', '\u00a0sessionId=a', 'sessionId=a\u00a0', 'sessionId=\u00e9', 'sessionId=\u0001', '__proto__=x; sessionId=a', 'constructor=x; sessionId=a',
]

// … and a few hundred from a generator (mulberry32) with a fixed seed.
let seed = 20261121
function random(n) {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) % n
}
const pieces = ['sessionId', 'sessionId', 'sessionId=', 'a', 'b=c', '=', '=', ';', ';', '; ', ' ', '\t', '"', '%3A', '.', 'x']
for (let i = 0; i < 400; i++) {
  headers.push(Array.from({ length: 1 + random(10) }, () => pieces[random(pieces.length)]).join(''))
}

const cases = [...new Set(headers)].map((header) => {
  const cookies = parse(header, { decode: (value) => value })
  return Object.hasOwn(cookies, name) ? { header, value: cookies[name] } : { header }
})
console.log('[\n' + cases.map((c) => '  ' + JSON.stringify(c)).join(',\n') + '\n]')
