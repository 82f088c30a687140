// Drives a server through one published version of the TypeScript SDK and
// prints one line of JSON per method: {method, result, ms, error}. The result
// is ok, missing (the server says that it does not have it), absent (this
// version of the SDK does not) or failed.
//
//   node program.cjs <directory with node_modules> <package>
//
// DAYTONA_API_URL and DAYTONA_API_KEY name the server, IMAGE an image that it
// can pull.
'use strict'
const assert = require('node:assert/strict')
const fs = require('node:fs')
const http = require('node:http')
const os = require('node:os')
const path = require('node:path')
const { createRequire } = require('node:module')
const desktop = require('./desktop.cjs')

const [dir, pkg] = process.argv.slice(2)
const sdk = createRequire(path.join(dir, 'package.json'))(pkg)

const limit = 180_000
const print = (line) => fs.writeSync(1, JSON.stringify(line) + '\n')
const same = (got, want) => assert.deepEqual(got, want)
const has = (text, part) => assert.ok(String(text).includes(part), `${JSON.stringify(text)} lacks ${JSON.stringify(part)}`)

// absent tells whether this version lacks the method.
function absent(object, name) {
  return object == null || typeof object[name] !== 'function'
}

async function timed(promise, what) {
  let timer
  const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(`${what} took longer than ${limit} ms`)), limit) })
  try { return await Promise.race([promise, late]) } finally { clearTimeout(timer) }
}

// step runs one method of an object. The value of work is returned; undefined
// also stands for a method that did not succeed.
async function step(object, label, name, work, variant = '') {
  const method = `${label}.${name}${variant}`
  if (absent(object, name)) return void print({ method, result: 'absent', ms: 0 })
  const began = performance.now()
  const ms = () => Math.round((performance.now() - began) * 10) / 10
  try {
    const value = await timed(work(), method)
    print({ method, result: 'ok', ms: ms() })
    return value
  } catch (e) {
    const missing = e.statusCode === 501 || e.response?.status === 501 || /Unexpected server response: 501/.test(e.message)
    print({ method, result: missing ? 'missing' : 'failed', ms: ms(), error: `${e.constructor?.name} ${e.statusCode ?? ''} ${e.message}` })
  }
}

// rejects expects an error of the server.
async function rejects(promise, status) {
  const e = await promise.then(() => undefined, (e) => e)
  assert.ok(e, `want an error with status ${status}`)
  if (e.statusCode === 501) throw e
  same(e.statusCode, status)
}

async function until(what, test) {
  for (let i = 0; i < 1200; i++) {
    if (await test()) return
    await new Promise((r) => setTimeout(r, 50))
  }
  throw new Error(`${what}: not so after a minute`)
}

// ask sends a plain request to a URL that the server handed out, as a browser
// would; hosts below localhost are this machine.
function ask(url, { method = 'GET', headers = {}, body } = {}) {
  const u = new URL(url)
  const host = u.hostname.endsWith('localhost') ? '127.0.0.1' : u.hostname
  return new Promise((yes, no) => {
    const req = http.request({ host, port: u.port, path: u.pathname + u.search, method, headers: { Host: u.host, ...headers } }, (res) => {
      const parts = []
      res.on('data', (part) => parts.push(part)).on('end', () => yes({ status: res.statusCode, text: Buffer.concat(parts).toString() }))
    })
    req.on('error', no).end(body)
  })
}

async function all(list) {
  if (list && typeof list[Symbol.asyncIterator] === 'function') {
    const items = []
    for await (const item of list) items.push(item)
    return items
  }
  return (await list).items
}

// listing lists by labels: newer versions iterate, here one item a page, older
// ones return the page that was asked for.
function listing(d, labels) {
  const iterator = d.list({ labels, limit: 1 })
  if (typeof iterator[Symbol.asyncIterator] === 'function') return iterator
  iterator.catch(() => {})
  return d.list(labels, 1, 10)
}

async function creates(d) {
  const run = `run-${process.pid}-${Date.now()}`
  const sb = await step(d, 'daytona', 'create', async () => {
    const sb = await d.create({ name: run, language: 'python', labels: { run }, envVars: { GREETING: 'hello there' }, autoStopInterval: 30 })
    same([sb.name, sb.state, sb.env.GREETING, sb.labels.run, sb.autoStopInterval], [run, 'started', 'hello there', run, 30])
    same(sb.labels['code-toolbox-language'], 'python')
    return sb
  })
  if (!sb) return
  await step(d, 'daytona', 'get', async () => {
    same((await d.get(sb.id)).name, run)
    same((await d.get(run)).id, sb.id)
    await rejects(d.get('no-such-sandbox'), 404)
  })
  await step(d, 'daytona', 'list', async () => {
    const items = await all(listing(d, { run }))
    same(items.map((i) => i.id), [sb.id])
    has((await items[0].process.executeCommand('echo listed')).result, 'listed')
  })
  await step(d, 'daytona', 'findOne', async () => same((await d.findOne({ labels: { run } })).id, sb.id))
  return sb
}

async function settings(sb) {
  const s = (name, work, variant) => step(sb, 'sandbox', name, work, variant)
  await s('getUserHomeDir', async () => has(await sb.getUserHomeDir(), '/'))
  await s('getUserRootDir', async () => has(await sb.getUserRootDir(), '/'))
  await s('getWorkDir', async () => has(await sb.getWorkDir(), '/'))
  await s('setLabels', async () => {
    same(await sb.setLabels({ run: sb.name, also: 'this' }), { run: sb.name, also: 'this' })
    await sb.setLabels({ run: sb.name, 'code-toolbox-language': 'python' })
  })
  await s('refreshData', async () => { await sb.refreshData(); same(sb.labels.run, sb.name) })
  await s('refreshActivity', async () => { await sb.refreshActivity(); await sb.refreshData(); assert.ok(Date.now() - Date.parse(sb.lastActivityAt ?? new Date()) < 60_000) })
  for (const [name, field, value] of [
    ['setAutostopInterval', 'autoStopInterval', 45], ['setAutoArchiveInterval', 'autoArchiveInterval', 600],
    ['setAutoDeleteInterval', 'autoDeleteInterval', 1200], ['setAutoPauseInterval', 'autoPauseInterval', 0],
  ]) await s(name, async () => { await sb[name](value); await sb.refreshData(); same(sb[field], value) }, value === 0 ? ' (off)' : '')
  await s('setTtl', async () => { await sb.setTtl(600); await sb.refreshData(); assert.ok(sb.autoDestroyAt); await sb.setTtl(0) })
  await s('updateNetworkSettings', async () => {
    await sb.updateNetworkSettings({ networkBlockAll: true })
    await sb.refreshData()
    same(sb.networkBlockAll, true)
    await sb.updateNetworkSettings({ networkBlockAll: false })
  })
  await s('updateEnv', async () => {
    await sb.updateEnv({ LATER: 'yes', SOON: 'x' })
    await sb.updateEnv({}, { unset: ['SOON'] })
    same((await sb.process.executeCommand('echo "$LATER-$SOON"')).result, 'yes-\n')
  })
  await s('getMetricsLatest', async () => { const m = await sb.getMetricsLatest(); assert.ok(m.memTotal > 0 && m.diskTotal > 0, JSON.stringify(m)) })
  await s('getMetrics', async () => assert.ok(Array.isArray(await sb.getMetrics())))
  await links(sb)
  const access = await s('createSshAccess', async () => {
    const a = await sb.createSshAccess(5)
    same(a.sandboxId, sb.id)
    assert.match(a.sshCommand, new RegExp(`^ssh -p \\d+ ${a.token}@127.0.0.1$`))
    return a
  })
  const token = access?.token ?? 'token'
  await s('validateSshAccess', async () => {
    const v = await sb.validateSshAccess(token)
    same([v.valid, v.sandboxId], [true, sb.id])
    same((await sb.validateSshAccess('no-such-token')).valid, false)
  })
  await s('revokeSshAccess', async () => {
    await sb.revokeSshAccess(token)
    same((await sb.validateSshAccess(token)).valid, false)
  })
}

// links asks for URLs and uses them.
async function links(sb) {
  const s = (name, work, variant) => step(sb, 'sandbox', name, work, variant)
  const serve = 'cd /tmp && echo hello from inside > index.html && (setsid python3 -m http.server 3000 >/dev/null 2>&1 &)'
  await sb.process.executeCommand(serve)
  const answers = (url, headers) => until('the preview answers', async () => (await ask(url, { headers })).text.includes('hello from inside'))
  await s('getPreviewLink', async () => {
    const l = await sb.getPreviewLink(3000)
    await answers(l.url, { 'x-daytona-preview-token': l.token })
    same((await ask(l.url)).status, 401)
  })
  const signed = await s('getSignedPreviewUrl', async () => {
    const l = await sb.getSignedPreviewUrl(3000, 60)
    same([l.sandboxId, l.port], [sb.id, 3000])
    await answers(l.url)
    return l
  })
  await s('expireSignedPreviewUrl', async () => {
    await sb.expireSignedPreviewUrl(3000, signed?.token ?? 'token')
    same((await ask(signed.url)).status, 401)
  })
  const file = '/tmp/a b:ü.txt'
  await s('uploadUrl', async () => {
    const url = await sb.uploadUrl(file)
    const r = await ask(url, { method: 'POST', headers: { 'content-type': 'application/octet-stream' }, body: 'through a URL' })
    same([r.status, (await sb.fs.downloadFile(file)).toString()], [200, 'through a URL'])
  })
  const url = await s('downloadUrl', async () => {
    const url = await sb.downloadUrl(file)
    const r = await ask(url)
    same([r.status, r.text], [200, 'through a URL'])
    assert.ok((await ask(url.replace('.txt', '.md'))).status >= 400, 'another path with the same signature')
    return url
  })
  await s('rotateSigningKey', async () => {
    await sb.rotateSigningKey()
    same((await ask(url)).status, 401)
  })
}

// split takes apart the stream of a session's command: three bytes 1 begin
// what went to stdout, three bytes 2 what went to stderr, in order of arrival.
function split(stream) {
  const out = ['', '']
  for (const [, mark, text] of stream.matchAll(/(\x01{3}|\x02{3})([^\x01\x02]*)/g)) out[mark[0] === '\x01' ? 0 : 1] += text
  return out
}

async function processes(sb) {
  const p = sb.process
  const s = (name, work) => step(p, 'process', name, work)
  await s('executeCommand', async () => {
    const r = await p.executeCommand('pwd; echo "$GREETING" "$MORE"; exit 3', '/tmp', { MORE: "it's" }, 20)
    same([r.exitCode, r.result], [3, "/tmp\nhello there it's\n"])
    same(r.artifacts.stdout, r.result)
    await rejects(p.executeCommand('sleep 20', undefined, undefined, 1), 408)
  })
  await s('codeRun', async () => {
    const r = await p.codeRun('import os, sys\nprint(6 * 7, os.environ["MORE"], *sys.argv[1:])', { env: { MORE: 'x' }, argv: ['a', 'b'] }, 20)
    same([r.exitCode, r.result.trim()], [0, '42 x a b'])
    assert.notEqual((await p.codeRun('raise SystemExit(4)')).exitCode, 0)
  })
  await s('createSession', async () => { await p.createSession('one'); await rejects(p.createSession('one'), 409) })
  const sync = await s('executeSessionCommand', async () => {
    await p.executeSessionCommand('one', { command: 'cd /tmp && export KEPT=yes' })
    const r = await p.executeSessionCommand('one', { command: 'pwd; echo $KEPT; echo err >&2; (exit 5)' })
    same(r.exitCode, 5)
    same(r.stdout === undefined ? split(r.output) : [r.stdout, r.stderr], ['/tmp\nyes\n', 'err\n'])
    return r
  })
  await s('getSession', async () => { const x = await p.getSession('one'); same(x.sessionId, 'one'); same(x.commands.length, 2) })
  await s('listSessions', async () => assert.ok((await p.listSessions()).some((x) => x.sessionId === 'one')))
  await s('getSessionCommand', async () => same((await p.getSessionCommand('one', sync.cmdId)).exitCode, 5))
  await s('getSessionCommandLogs', async () => {
    const logs = await p.getSessionCommandLogs('one', sync.cmdId)
    has(logs.stdout ?? logs.output, 'yes')
    has(logs.stderr ?? logs.output, 'err')
    const run = await p.executeSessionCommand('one', { command: 'for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.05; done', runAsync: true })
    let out = '', err = ''
    await p.getSessionCommandLogs('one', run.cmdId, (c) => { out += c }, (c) => { err += c })
    same([out, err], ['out1\nout2\nout3\n', 'err1\nerr2\nerr3\n'])
  })
  await s('sendSessionCommandInput', async () => {
    const run = await p.executeSessionCommand('one', { command: 'read line; echo "got $line"', runAsync: true })
    await p.sendSessionCommandInput('one', run.cmdId, 'a word')
    await until('the command ends', async () => (await p.getSessionCommand('one', run.cmdId)).exitCode === 0)
    const logs = await p.getSessionCommandLogs('one', run.cmdId)
    has(logs.stdout ?? logs.output, 'got a word')
  })
  await s('deleteSession', async () => { await p.deleteSession('one'); await rejects(p.getSession('one'), 404) })
}

async function terminals(sb) {
  const p = sb.process
  const s = (name, work) => step(p, 'process', name, work)
  let seen = ''
  const onData = (data) => { seen += Buffer.from(data).toString() }
  const pty = await s('createPty', async () => {
    const pty = await p.createPty({ id: 'term', cols: 100, rows: 30, cwd: '/tmp', envs: { COLOUR: 'blue' }, onData })
    await pty.waitForConnection()
    await pty.sendInput('echo $COLOUR-$PWD\n')
    await until('the terminal answers', () => seen.includes('blue-/tmp'))
    return pty
  })
  await s('listPtySessions', async () => assert.ok((await p.listPtySessions()).some((x) => x.id === 'term')))
  await s('getPtySessionInfo', async () => { const x = await p.getPtySessionInfo('term'); same([x.id, x.cols, x.rows, x.active], ['term', 100, 30, true]) })
  await s('resizePtySession', async () => { const x = await p.resizePtySession('term', 120, 40); same([x.cols, x.rows], [120, 40]) })
  await s('connectPty', async () => {
    let other = ''
    const second = await p.connectPty('term', { onData: (d) => { other += Buffer.from(d).toString() } })
    await second.waitForConnection()
    await second.sendInput('echo to-$((40+2))\n')
    await until('both see it', () => other.includes('to-42') && seen.includes('to-42'))
    await second.disconnect()
  })
  for (const [name, work] of Object.entries({
    resize: async () => same((await pty.resize(90, 20)).cols, 90),
    wait: async () => { await pty.sendInput('exit 7\n'); same((await pty.wait()).exitCode, 7) },
    kill: async () => {
      const h = await p.createPty({ id: 'killed', onData: () => {} })
      await h.kill()
      assert.notEqual((await h.wait()).exitCode, 0)
    },
  })) await step(pty ?? {}, 'pty', name, work)
  await s('killPtySession', async () => {
    await p.createPty({ id: 'gone', onData: () => {} })
    await p.killPtySession('gone')
    await rejects(p.getPtySessionInfo('gone'), 404)
  })
}

async function interpreter(sb) {
  const c = sb.codeInterpreter
  const s = (name, work) => step(c, 'codeInterpreter', name, work)
  await s('runCode', async () => {
    let live = ''
    const r = await c.runCode('import sys\ny = 20\nprint(y + 1)\nprint("oh", file=sys.stderr)', { onStdout: (m) => { live += m.output } })
    same([r.stdout, r.stderr, live], ['21\n', 'oh\n', '21\n'])
    same((await c.runCode('print(y)')).stdout, '20\n')
    same((await c.runCode('1 / 0')).error.name, 'ZeroDivisionError')
  })
  const context = await s('createContext', async () => { const made = await c.createContext('/tmp'); same([made.cwd, made.language], ['/tmp', 'python']); return made })
  await s('listContexts', async () => assert.ok((await c.listContexts()).some((x) => x.id === context.id)))
  await s('deleteContext', async () => {
    await c.runCode('x = 1', { context })
    same((await c.runCode('import os; print(x, os.getcwd())', { context })).stdout, '1 /tmp\n')
    await c.deleteContext(context)
    assert.ok(!(await c.listContexts()).some((x) => x.id === context.id))
  })
}

async function files(sb) {
  const f = sb.fs
  const s = (name, work) => step(f, 'fs', name, work)
  const local = fs.mkdtempSync(path.join(os.tmpdir(), 'sdk'))
  const big = Buffer.alloc(3 << 20, 'abcdefg')
  await s('createFolder', async () => { await f.createFolder('work/sub', '755'); same((await f.getFileDetails('work/sub')).isDir, true) })
  await s('uploadFile', async () => {
    await f.uploadFile(Buffer.from('one\ntwo needle\n'), 'work/a.txt')
    fs.writeFileSync(path.join(local, 'up'), big)
    await f.uploadFile(path.join(local, 'up'), 'work/sub/big.bin')
  })
  await s('uploadFiles', () => f.uploadFiles([
    { source: Buffer.from('b needle'), destination: 'work/b.txt' }, { source: Buffer.from('ü'), destination: 'work/sp ace ü.txt' },
  ]))
  await s('uploadFileStream', async () => {
    await f.uploadFileStream(fs.createReadStream(path.join(local, 'up')), 'work/streamed')
    same((await f.getFileDetails('work/streamed')).size, big.length)
  })
  await s('downloadFile', async () => {
    same((await f.downloadFile('work/a.txt')).toString(), 'one\ntwo needle\n')
    same((await f.downloadFile('work/sp ace ü.txt')).toString(), 'ü')
    await f.downloadFile('work/sub/big.bin', path.join(local, 'down'))
    assert.ok(fs.readFileSync(path.join(local, 'down')).equals(big))
    await assert.rejects(f.downloadFile('work/nothing'))
  })
  await s('downloadFileStream', async () => {
    const parts = []
    for await (const part of await f.downloadFileStream('work/sub/big.bin')) parts.push(part)
    assert.ok(Buffer.concat(parts).equals(big))
  })
  await s('downloadFiles', async () => {
    const r = await f.downloadFiles([{ source: 'work/a.txt' }, { source: 'work/none' }, { source: 'work/b.txt', destination: path.join(local, 'b') }])
    same(r[0].result.toString(), 'one\ntwo needle\n')
    assert.ok(r[1].error, JSON.stringify(r[1]))
    same(fs.readFileSync(path.join(local, 'b'), 'utf8'), 'b needle')
  })
  await s('listFiles', async () => same((await f.listFiles('work')).map((x) => x.name).sort().slice(0, 3), ['a.txt', 'b.txt', 'sp ace ü.txt']))
  await s('getFileDetails', async () => {
    const x = await f.getFileDetails('work/a.txt')
    same([x.name, x.size, x.isDir, x.permissions], ['a.txt', 15, false, '0644'])
    assert.ok(x.owner && x.group && x.mode && x.modTime)
    await rejects(f.getFileDetails('work/none'), 404)
  })
  await s('findFiles', async () => {
    const m = await f.findFiles('work', 'needle')
    same(m.map((x) => [path.basename(x.file), x.line, x.content.trim()]).sort(), [['a.txt', 2, 'two needle'], ['b.txt', 1, 'b needle']])
  })
  await s('searchFiles', async () => same((await f.searchFiles('work', '*.txt')).files.length, 3))
  await s('replaceInFiles', async () => {
    const r = await f.replaceInFiles(['work/a.txt', 'work/none'], 'needle', 'thread')
    same(r.map((x) => x.success), [true, false])
    same((await f.downloadFile('work/a.txt')).toString(), 'one\ntwo thread\n')
  })
  await s('setFilePermissions', async () => { await f.setFilePermissions('work/a.txt', { mode: '600' }); same((await f.getFileDetails('work/a.txt')).permissions, '0600') })
  await s('moveFiles', async () => {
    await f.moveFiles('work/a.txt', 'work/c.txt')
    same((await f.getFileDetails('work/c.txt')).size, 15)
    await rejects(f.getFileDetails('work/a.txt'), 404)
  })
  await s('deleteFile', async () => {
    await f.deleteFile('work/c.txt')
    await rejects(f.deleteFile('work'), 400)
    await f.deleteFile('work', true)
    await rejects(f.getFileDetails('work'), 404)
  })
  fs.rmSync(local, { recursive: true })
}

async function git(sb) {
  const g = sb.git
  const s = (name, work) => step(g, 'git', name, work)
  await sb.process.executeCommand('rm -rf repo origin.git work copy; git init -q -b main repo && git init -q --bare -b main origin.git && git -C repo remote add origin "$PWD/origin.git"')
  const home = await sb.getWorkDir()
  await s('init', async () => { await g.init('fresh', false, 'trunk'); same((await g.status('fresh')).currentBranch, 'trunk') })
  await sb.fs.uploadFile(Buffer.from('text\n'), 'repo/file.txt')
  await s('status', async () => {
    const st = await g.status('repo')
    same([st.currentBranch, st.fileStatus.map((x) => [x.name, x.worktree])], ['main', [['file.txt', 'Untracked']]])
  })
  await s('add', async () => { await g.add('repo', ['.']); same((await g.status('repo')).fileStatus[0].staging, 'Added') })
  await s('commit', async () => {
    const c = await g.commit('repo', 'first', 'A Person', 'a@example.com')
    assert.match(c.sha, /^[0-9a-f]{40}$/)
  })
  await s('push', async () => { await g.push('repo'); has((await sb.process.executeCommand('git -C origin.git log --oneline')).result, 'first') })
  await s('clone', async () => {
    await g.clone(`file://${home}/origin.git`, 'copy')
    same((await sb.fs.downloadFile('copy/file.txt')).toString(), 'text\n')
  })
  await s('branches', async () => has((await g.branches('repo')).branches, 'main'))
  await s('createBranch', async () => { await g.createBranch('repo', 'side'); has((await g.branches('repo')).branches, 'side') })
  await s('checkoutBranch', async () => { await g.checkoutBranch('repo', 'side'); same((await g.status('repo')).currentBranch, 'side') })
  await s('deleteBranch', async () => { await g.checkoutBranch('repo', 'main'); await g.deleteBranch('repo', 'side') })
  await s('pull', async () => {
    await sb.process.executeCommand('cd repo && echo more > more.txt && git add . && git -c user.name=x -c user.email=x@y commit -qm second && git push -q origin main')
    await g.pull('copy')
    same((await sb.fs.downloadFile('copy/more.txt')).toString(), 'more\n')
  })
  await s('reset', async () => {
    await sb.fs.uploadFile(Buffer.from('changed\n'), 'repo/file.txt')
    await g.reset('repo', 'hard')
    same((await sb.fs.downloadFile('repo/file.txt')).toString(), 'text\n')
  })
  await s('restore', async () => {
    await sb.fs.uploadFile(Buffer.from('changed\n'), 'repo/file.txt')
    await g.restore('repo', ['file.txt'])
    same((await sb.fs.downloadFile('repo/file.txt')).toString(), 'text\n')
  })
  await s('remoteAdd', async () => { await g.remoteAdd('repo', 'other', 'https://git.example.com/x.git'); has((await sb.process.executeCommand('git -C repo remote')).result, 'other') })
  await s('remotes', async () => assert.ok((await g.remotes('repo')).remotes.some((r) => r.name === 'other')))
  await s('remoteGet', async () => same(await g.remoteGet('repo', 'other'), 'https://git.example.com/x.git'))
  await s('setConfig', async () => { await g.setConfig('user.name', 'B Person', 'local', 'repo'); has((await sb.process.executeCommand('git -C repo config user.name')).result, 'B Person') })
  await s('getConfig', async () => same(await g.getConfig('user.name', 'local', 'repo'), 'B Person'))
  await s('configureUser', async () => { await g.configureUser('C Person', 'c@example.com', 'local', 'repo'); same(await g.getConfig('user.email', 'local', 'repo'), 'c@example.com') })
  await s('dangerouslyAuthenticate', async () => {
    await g.dangerouslyAuthenticate('u', 'p-word', 'git.example.com', 'https')
    has((await sb.process.executeCommand('printf "protocol=https\\nhost=git.example.com\\n\\n" | git credential fill')).result, 'p-word')
  })
}

async function language(sb) {
  const lsp = await sb.createLspServer('python', 'repo') // asks the server nothing
  const l = (name, work) => step(lsp, 'lsp', name, work)
  const file = 'repo/shop.py'
  await sb.fs.uploadFile(Buffer.from('class Basket:\n    def add_item(self): pass\n\nBasket.\n'), file)
  const named = async (symbols, name) => assert.ok((await symbols).some((x) => x.name === name && x.kind > 0 && x.location.range), name)
  await l('start', () => lsp.start())
  await l('didOpen', () => lsp.didOpen(file))
  await l('documentSymbols', () => named(lsp.documentSymbols(file), 'add_item'))
  await l('workspaceSymbols', () => named(lsp.workspaceSymbols('bask'), 'Basket'))
  await l('sandboxSymbols', () => named(lsp.sandboxSymbols('bask'), 'Basket'))
  await l('completions', async () => assert.ok((await lsp.completions(file, { line: 3, character: 7 })).items.some((i) => i.label.startsWith('add_item'))))
  await l('didClose', () => lsp.didClose(file))
  await l('stop', () => lsp.stop())
}

async function volumes(d, run) {
  const v = d.volume
  const s = (name, work) => step(v, 'volume', name, work)
  await s('list', async () => assert.ok(Array.isArray(await v.list())))
  const volume = await s('create', async () => { const made = await v.create(run); same(made.name, run); return made })
  await s('get', async () => {
    await rejects(v.get('no-such-volume'), 404)
    same((await v.get(run, true)).id, volume?.id)
  })
  await s('delete', async () => { await v.delete(volume ?? { id: 'none' }); await until('gone', () => v.get(run).then(() => false, (e) => e.statusCode === 404)) })
}

async function secrets(d, sb, run) {
  const x = d.secret
  const s = (name, work) => step(x, 'secret', name, work)
  const secret = await s('create', async () => {
    const made = await x.create({ name: run, value: 'do-not-tell', hosts: ['api.example.com'] })
    same([made.name, made.hosts], [run, ['api.example.com']])
    assert.ok(made.placeholder && !JSON.stringify(made).includes('do-not-tell'))
    return made
  })
  const id = secret?.id ?? 'none'
  await s('list', async () => assert.ok((await x.list({ name: run, limit: 5 })).items.some((i) => i.id === id)))
  await s('get', async () => same((await x.get(id)).name, run))
  await s('update', async () => same((await x.update(id, { description: 'changed', value: 'do-not-tell-either' })).description, 'changed'))
  await step(sb, 'sandbox', 'updateSecrets', async () => {
    await sb.updateSecrets({ TOKEN: run })
    same((await sb.process.executeCommand('echo "$TOKEN"')).result.trim(), secret?.placeholder)
    await sb.updateSecrets({})
    same((await sb.process.executeCommand('echo "$TOKEN"')).result.trim(), '')
  })
  await s('delete', async () => { await x.delete(id); await rejects(x.get(id), 404) })
}

async function pools(d) {
  const w = d.warmPool
  const s = (name, work) => step(w, 'warmPool', name, work)
  const pool = await s('create', async () => { const made = await w.create({ snapshot: 'atoll-small', pool: 1 }); same(made.pool, 1); return made })
  const id = pool?.id ?? 'none'
  await s('list', async () => assert.ok((await w.list()).some((i) => i.id === id)))
  await s('update', async () => same((await w.update(id, { pool: 0 })).pool, 0))
  await s('delete', async () => { await w.delete(id); assert.ok(!(await w.list()).some((i) => i.id === id)) })
}

async function others(d, sb) {
  await language(sb)
  await desktop(d, { step, same, has, rejects })
  await volumes(d, sb.name)
  await secrets(d, sb, sb.name)
  await pools(d)
}

async function snapshots(d, sb) {
  const n = d.snapshot
  const s = (name, work) => step(n, 'snapshot', name, work)
  await s('list', async () => { const p = await n.list(); assert.ok(p.total >= 1 && p.items.some((x) => x.name === 'atoll-small')) })
  await s('get', async () => { same((await n.get('atoll-small')).state, 'active'); await rejects(n.get('no-such-snapshot'), 404) })
  const name = `${sb.name}-image`
  await s('create', async () => {
    const entrypoint = ['sh', '-c', 'echo it runs; echo oh >&2; exec sleep 600']
    same((await n.create({ name, image: process.env.IMAGE, entrypoint }, { timeout: 120 })).state, 'active')
  })
  await entrypoints(d, name)
  await s('activate', async () => {
    const e = await n.get(name).then((x) => n.activate(x)).catch((e) => e) // it is active: the contract takes 200 and 400
    if (e.statusCode === 501) throw e
    assert.ok(e.state === 'active' || e.statusCode === 400, `${e.statusCode} ${e.message}`)
  })
  await s('delete', async () => { await n.delete(await n.get(name)); await rejects(n.get(name), 404) })
  const saved = `${sb.name}-saved`
  await step(sb, 'sandbox', 'createSnapshot', async () => {
    await sb.process.executeCommand('echo kept > /tmp/kept')
    await sb.createSnapshot(saved)
    same((await n.get(saved)).sourceSandboxId ?? sb.id, sb.id)
    const child = await d.create({ snapshot: saved })
    has((await child.process.executeCommand('cat /tmp/kept')).result, 'kept')
    await child.delete()
    await n.delete(await n.get(saved))
  })
  await step(sb, 'sandbox', 'fork', async () => {
    const child = await sb.fork({ name: `${sb.name}-fork` })
    same([child.state, child.name], ['started', `${sb.name}-fork`])
    has((await child.process.executeCommand('cat /tmp/kept')).result, 'kept')
    await d.delete(child)
  })
  await step(d, 'daytona', 'fork', async () => { const child = await d.fork(sb); same(child.state, 'started'); await d.delete(child) })
}

async function entrypoints(d, snapshot) {
  const sb = await d.create({ snapshot })
  const p = sb.process
  await step(p, 'process', 'getEntrypointSession', async () => {
    const session = await p.getEntrypointSession()
    same([session.sessionId, session.commands.length], ['entrypoint', 1])
  })
  await step(p, 'process', 'getEntrypointLogs', async () => {
    let logs
    await until('it prints', async () => { logs = await p.getEntrypointLogs(); return logs.stdout && logs.stderr })
    same([logs.stdout, logs.stderr], ['it runs\n', 'oh\n'])
  })
  await d.delete(sb)
}

// events listens with the SDK's own Socket.IO client.
async function events(d) {
  let io
  try { io = createRequire(path.join(dir, 'package.json'))('socket.io-client').io } catch { /* this version polls */ }
  const url = new URL(process.env.DAYTONA_API_URL)
  const dial = (token) => io(url.origin, { path: `${url.pathname}/socket.io/`, transports: ['websocket'], auth: { token }, reconnection: false })
  const connected = (socket) => new Promise((yes, no) => { socket.on('connect', yes); socket.on('connect_error', no) })
  await step(io && { connect: io }, 'events', 'connect', async () => {
    const bad = dial('wrong')
    has((await connected(bad).then(() => 'connected', (e) => e)).message, 'key')
    await until('the SDK is connected', () => d.eventDispatcher.isConnected)
  })
  await step(io && { receive: io }, 'events', 'receive', async () => {
    const socket = dial(process.env.DAYTONA_API_KEY)
    await connected(socket)
    const seen = []
    socket.onAny((name, data) => seen.push([name, data.sandbox ?? data, data.newState ?? data.newDesiredState]))
    const sb = await d.create()
    const own = () => seen.filter(([, x]) => x.id === sb.id)
    const told = (name, state) => own().some(([n, x, to]) => n === name && to === state && x.toolboxProxyUrl === sb.toolboxProxyUrl)
    await until('sandbox.created', () => told('sandbox.created'))
    await d.delete(sb)
    await until('sandbox.desired-state.updated', () => told('sandbox.desired-state.updated', 'destroyed'))
    await until('sandbox.state.updated', () => told('sandbox.state.updated', 'destroyed'))
    socket.close()
  })
}

async function life(d, sb) {
  const s = (name, work, variant) => step(sb, 'sandbox', name, work, variant)
  await s('resize', async () => { const cpu = sb.cpu; await sb.resize({ cpu: cpu + 1 }); await sb.refreshData(); same([sb.cpu, sb.state], [cpu + 1, 'started']) })
  await s('waitForResizeComplete', () => sb.waitForResizeComplete())
  await s('pause', async () => { // the contract's 422 for a class that cannot
    const e = await sb.pause().then(() => sb, (e) => e)
    if (e.statusCode === 501) throw e
    assert.ok(e.statusCode === 422 || e.state === 'paused', `${e.statusCode} ${e.message}`)
  })
  await s('stop', async () => { await sb.stop(); same(sb.state, 'stopped'); await rejects(sb.stop(), 400) })
  await s('waitUntilStopped', async () => { await sb.waitUntilStopped(); same(sb.state, 'stopped') })
  await s('archive', async () => { await sb.archive(); await sb.refreshData(); assert.match(sb.state, /^archiv/) })
  await s('start', async () => { await sb.start(); same(sb.state, 'started'); has((await sb.process.executeCommand('echo up')).result, 'up'); await sb.start() })
  await s('waitUntilStarted', async () => { await sb.waitUntilStarted(); same(sb.state, 'started') })
  await s('recover', () => rejects(sb.recover(), 400), ' (of one that has no error)')
  await step(d, 'daytona', 'stop', async () => { await d.stop(sb); same(sb.state, 'stopped') })
  await step(d, 'daytona', 'start', async () => { await d.start(sb); same(sb.state, 'started') })
  await s('delete', async () => { await sb.delete(60, true); await rejects(d.get(sb.id), 404) })
  await step(d, 'daytona', 'delete', async () => { const other = await d.create(); await d.delete(other); await until('gone', () => d.get(other.id).then(() => false, (e) => e.statusCode === 404)) })
}

// images makes sandboxes without a snapshot.
async function images(d) {
  await step(d, 'daytona', 'create', async () => {
    const sb = await d.create({ image: process.env.IMAGE, resources: { cpu: 1, memory: 1, disk: 1 } }, { timeout: 120 })
    same([sb.state, sb.memory], ['started', 1])
    await d.delete(sb)
  }, ' (image)')
  await step(d, 'daytona', 'create', async () => {
    const sb = await d.create({ image: sdk.Image.base(process.env.IMAGE).runCommands('echo built > /built') }, { timeout: 120 })
    has((await sb.process.executeCommand('cat /built')).result, 'built')
    await d.delete(sb)
  }, ' (Dockerfile)')
}

async function main() {
  const d = new sdk.Daytona()
  const sb = await creates(d)
  if (!sb) return
  await events(d)
  await settings(sb)
  await processes(sb)
  await terminals(sb)
  await interpreter(sb)
  await files(sb)
  await git(sb)
  await others(d, sb)
  await snapshots(d, sb)
  await images(d)
  await life(d, sb)
}

main().then(() => process.exit(0), (e) => { print({ method: 'program', result: 'failed', ms: 0, error: e.stack }); process.exit(1) })
