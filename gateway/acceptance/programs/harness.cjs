// What the programs of this folder share. Each is started as
//
//   node program.cjs <directory with node_modules>
//
// with DAYTONA_API_URL and DAYTONA_API_KEY set, and prints one line of JSON per
// operation: {method, result, ms, error}. The result is ok, missing (the server
// says that it does not have it), absent (the package does not) or failed.
'use strict'
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { createRequire } = require('node:module')

const limit = 180_000
const print = (line) => fs.writeSync(1, JSON.stringify(line) + '\n')

exports.load = createRequire(path.join(process.argv[2], 'package.json'))
exports.same = (got, want) => assert.deepEqual(got, want)
exports.has = (text, part) => assert.ok(String(text).includes(part), `${JSON.stringify(text)} lacks ${JSON.stringify(part)}`)

// missing tells whether an error, or one that it wraps, is our 501.
function missing(e) {
  for (; e; e = e.cause ?? e.originalError ?? (e.details?.cause && { message: e.details.cause })) {
    if (e.statusCode === 501 || e.response?.status === 501 || /is not built|Unexpected server response: 501/.test(e.message)) return true
  }
  return false
}

// step runs one operation; its value is returned, undefined when it failed.
async function step(method, work) {
  const began = performance.now()
  const ms = () => Math.round((performance.now() - began) * 10) / 10
  let timer
  const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(`longer than ${limit} ms`)), limit) })
  try {
    const value = await Promise.race([work(), late])
    print({ method, result: 'ok', ms: ms() })
    return value ?? true
  } catch (e) {
    print({ method, result: missing(e) ? 'missing' : 'failed', ms: ms(), error: `${e.constructor?.name}: ${e.message}` })
  } finally { clearTimeout(timer) }
}

exports.until = async (what, test) => {
  for (let i = 0; i < 1200; i++) {
    if (await test()) return
    await new Promise((r) => setTimeout(r, 50))
  }
  throw new Error(`${what}: not so after a minute`)
}

exports.main = (program) => program(step).then(
  () => process.exit(0),
  (e) => { print({ method: 'program', result: 'failed', ms: 0, error: e.stack }); process.exit(1) },
)
