// An ordinary Express application with express-session and connect-redis. It
// prints its port when it listens.
'use strict'

const modules = require('node:module').createRequire(process.env.GATEHOUSE_NODE_MODULES + '/')
const express = modules('express')
const session = modules('express-session')
const { RedisStore } = modules('connect-redis')
const { createClient } = modules('redis')

const client = createClient({ url: process.env.REDIS_URL })
const app = express()
app.use(express.json())
app.use(session({
  name: 'sessionId',
  secret: JSON.parse(process.env.SECRETS),
  store: new RedisStore({ client }),
  resave: false,
  saveUninitialized: false,
  cookie: { maxAge: 86400000, secure: false, httpOnly: true, sameSite: 'strict' },
}))

// Takes what is posted into the session; logging in begins a new one.
app.post('/login', (req, res, next) => req.session.regenerate((err) => {
  if (err) return next(err)
  Object.assign(req.session, req.body)
  res.json({ id: req.sessionID })
}))
app.post('/set', (req, res) => {
  Object.assign(req.session, req.body)
  res.json({})
})
app.get('/session', (req, res) => res.json(req.session))
app.post('/logout', (req, res, next) => req.session.destroy((err) => err ? next(err) : res.json({})))

// A request that takes its time, and saves its session at the end. It says
// when it has the session in memory, and which one it is, and goes on when
// /release is called.
let release
let held = 0
app.post('/hold', async (req, res) => {
  req.session.held = true
  await new Promise((resolve) => {
    release = resolve
    console.log(`holding ${++held}`)
  })
  res.json({})
})
app.post('/release', (req, res) => {
  release()
  res.json({})
})

client.connect().then(() => {
  const server = app.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`))
})
