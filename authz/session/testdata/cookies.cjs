// Says which session id, if any, the real express-session finds in each value
// of a session cookie. In: {"secrets": [...], "values": [...]}; out: an array
// of ids and nulls.
'use strict'

const modules = require('node:module').createRequire(process.env.GATEHOUSE_NODE_MODULES + '/')
const session = modules('express-session')
const { EventEmitter } = require('node:events')
const { text } = require('node:stream/consumers')

// Asked is a store that has no session, and remembers for which one it was asked.
class Asked extends session.Store {
  get(id, done) {
    this.id = id
    done(null, null)
  }
}

text(process.stdin).then((input) => {
  const { secrets, values } = JSON.parse(input)
  const store = new Asked()
  const middleware = session({ name: 'sessionId', secret: secrets, store, resave: false, saveUninitialized: false })
  const ids = values.map((value) => {
    store.id = null
    const response = Object.assign(new EventEmitter(), { writeHead() {}, end() {} })
    middleware({ url: '/', headers: { cookie: 'sessionId=' + value } }, response, (err) => {
      if (err) throw err
    })
    return store.id
  })
  process.stdout.write(JSON.stringify(ids))
})
