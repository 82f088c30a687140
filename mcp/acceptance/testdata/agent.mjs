// An agent without a key: it learns from the server's refusal where tokens come
// from, registers, sends its user to log in, and calls a tool. It prints what
// it got.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const [url, user, name] = process.argv.slice(2)
const callback = 'http://127.0.0.1:1/callback'

// browse is the user's browser: it fills in the forms that it meets, until it
// is sent back to the agent with a code.
async function browse(at) {
  const cookies = new Map()
  let form
  for (let steps = 0; steps < 20; steps++) {
    const res = await fetch(at, {
      redirect: 'manual',
      method: form ? 'POST' : 'GET',
      body: form,
      headers: { cookie: [...cookies].map(([k, v]) => `${k}=${v}`).join('; ') },
    })
    for (const c of res.headers.getSetCookie()) {
      const [k, v] = c.split(';')[0].split(/=(.*)/s)
      cookies.set(k, v)
    }
    form = undefined
    const next = res.headers.get('location')
    if (next) {
      at = new URL(next, at)
      if (at.href.startsWith(callback)) return at.searchParams
      continue
    }
    const page = await res.text()
    const action = /<form[^>]*action="([^"]+)"/.exec(page)
    if (!action) throw new Error(`${res.status} at ${at}: ${page}`)
    at = new URL(action[1], at)
    form = new URLSearchParams(page.includes('value="login"') ? { prompt: 'login', login: user, password: 'any' } : { prompt: 'consent' })
  }
  throw new Error(`lost at ${at}`)
}

const kept = {}
let sentBack
const auth = {
  redirectUrl: callback,
  clientMetadata: {
    client_name: 'an agent', redirect_uris: [callback], grant_types: ['authorization_code'],
    response_types: ['code'], token_endpoint_auth_method: 'none', application_type: 'native',
  },
  clientInformation: () => kept.client,
  saveClientInformation: (c) => { kept.client = c },
  tokens: () => kept.tokens,
  saveTokens: (t) => { kept.tokens = t },
  saveCodeVerifier: (v) => { kept.verifier = v },
  codeVerifier: () => kept.verifier,
  redirectToAuthorization: async (to) => { sentBack = await browse(to) },
}

const connect = async () => {
  const client = new Client({ name: 'agent', version: '1' })
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: auth })
  try {
    await client.connect(transport)
    return client
  } catch (err) {
    if (!(err instanceof UnauthorizedError)) throw err
    await transport.finishAuth(sentBack.get('code'))
    return undefined
  }
}
const first = await connect()
if (first) throw new Error('the server let in an agent without a token')
const client = await connect()
const { tools } = await client.listTools()
const made = await client.callTool({ name: 'sandbox_create', arguments: { name } })
console.log(JSON.stringify({ tools: tools.length, text: made.content[0].text, isError: !!made.isError, token: kept.tokens.access_token }))
await client.close()
