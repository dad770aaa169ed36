// An ordinary Express application with express-session and connect-redis, as
// it would stand beside Gatehouse. It prints its port when it listens.
//
//   REDIS_URL     where the sessions are
//   SESSION       options of express-session, as JSON
//   STORE         options of connect-redis, as JSON
import { createRequire } from 'node:module'

const load = createRequire(process.env.GATEHOUSE_NODE_MODULES + '/')
const express = load('express')
const session = load('express-session')
const { RedisStore } = load('connect-redis')
const { createClient } = load('redis')

const client = createClient({ url: process.env.REDIS_URL })
client.on('error', (err) => console.error(err.message))

const app = express()
app.set('trust proxy', 1) // TLS ends at the gateway
app.use(express.json())
app.use(session({
  name: 'sessionId',
  resave: false,
  saveUninitialized: false,
  rolling: true,
  cookie: { maxAge: 86400000, secure: true, httpOnly: true, sameSite: 'strict' },
  ...JSON.parse(process.env.SESSION),
  store: new RedisStore({ client, ...JSON.parse(process.env.STORE || '{}') }),
}))

// Logging in begins a new session with what is posted.
app.post('/login', (req, res, next) => req.session.regenerate((err) => {
  if (err) return next(err)
  Object.assign(req.session, req.body)
  res.json({ id: req.sessionID })
}))
app.post('/logout', (req, res, next) => req.session.destroy((err) => err ? next(err) : res.json({})))

// Takes what is posted into the session, whoever's it is.
app.post('/touch', (req, res) => {
  Object.assign(req.session, req.body)
  res.json({})
})
app.get('/me', (req, res) => res.json(req.session))

await client.connect()
const server = app.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`))
