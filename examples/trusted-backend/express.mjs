// A login service that keeps its own users and lets Gatehouse keep the session.
import { createRequire } from 'node:module'

const express = createRequire((process.env.GATEHOUSE_NODE_MODULES ?? process.cwd()) + '/')('express')
const { GATEHOUSE_URL, GATEHOUSE_KEY } = process.env

// Your own check. Here: one user, for the example.
const check = ({ email, password }) =>
  email === 'erin@example.com' && password === process.env.ERINS_PASSWORD && { id: 'erin', email, roles: ['member'], org: 'org-1' }

const app = express()
app.use(express.json())
app.post('/login', async (req, res) => {
  const user = check(req.body)
  if (!user) return res.status(401).json({ error: 'Invalid credentials' })
  const session = await fetch(GATEHOUSE_URL + '/auth/sessions', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-internal-api-key': GATEHOUSE_KEY },
    body: JSON.stringify({ userId: user.id, email: user.email, roles: user.roles, organizationId: user.org, address: req.ip, userAgent: req.get('user-agent') }),
  })
  if (session.status !== 201) return res.status(session.status).json(await session.json())
  res.set('set-cookie', session.headers.getSetCookie()).json({ userId: user.id })
})
const server = app.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`))
