// The part of program.cjs about computer use: a sandbox of the snapshot
// atoll-desktop, with programs on its screen.
'use strict'
const assert = require('node:assert/strict')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const sleep = (ms) => new Promise((r) => setTimeout(r, ms))

// inside is a picture's kind and size, from its first bytes.
function inside(shot) {
  const b = Buffer.from(shot.screenshot, 'base64')
  assert.equal(b.length, shot.sizeBytes)
  if (b.readUInt16BE(0) === 0xffd8) return { kind: 'jpeg' }
  assert.equal(b.toString('latin1', 1, 4), 'PNG')
  return { kind: 'png', width: b.readUInt32BE(16), height: b.readUInt32BE(20) }
}

// until waits for what programs on the screen do.
async function until(what, test) {
  let last
  for (let i = 0; i < 900; i++) {
    try { if (await test()) return } catch (e) { last = e }
    await sleep(100)
  }
  throw new Error(`${what}: not so after 90 s: ${last ?? ''}`)
}

module.exports = async function desktop(d, { step, same, has, rejects }) {
  const sb = await step(d, 'daytona', 'create', () => d.create({ snapshot: 'atoll-desktop' }), ' (atoll-desktop)')
  if (!sb) return
  const run = async (command) => (await sb.process.executeCommand(command)).result.trim()
  const c = sb.computerUse
  const s = (name, work) => step(c, 'computerUse', name, work)
  await s('start', async () => {
    const r = await c.start()
    for (const name of ['xvfb', 'xfce4', 'x11vnc', 'novnc']) assert.ok(r.status[name].running, name)
  })
  await s('getStatus', async () => same((await c.getStatus()).status, 'active'))
  await s('getProcessStatus', async () => {
    same(await c.getProcessStatus('novnc'), { processName: 'novnc', running: true })
    await rejects(c.getProcessStatus('nosuch'), 404)
  })
  await s('restartProcess', async () => {
    same((await c.restartProcess('x11vnc')).processName, 'x11vnc')
    same((await c.getProcessStatus('x11vnc')).running, true)
  })
  await s('getProcessLogs', async () => same(typeof (await c.getProcessLogs('xvfb')).logs, 'string'))
  await s('getProcessErrors', () => until('novnc tells its port', async () => (await c.getProcessErrors('novnc')).errors.includes('6080')))

  // A terminal that writes what is typed into a file.
  await run('touch /tmp/typed; setsid xfce4-terminal --geometry=80x20+200+150 --title=Typing -x sh -c "cat >/tmp/typed" >/dev/null 2>&1 &')
  let window
  await step(c.display, 'computerUse.display', 'getWindows', () => until('the terminal', async () => {
    window = (await c.display.getWindows()).windows.find((w) => w.title === 'Typing')
    return window && window.width > 100
  }))
  await step(c.display, 'computerUse.display', 'getInfo', async () => {
    same((await c.display.getInfo()).displays, [{ id: 0, x: 0, y: 0, width: 1280, height: 800, isActive: true }])
  })
  window ??= { x: 200, y: 150, width: 500, height: 300 }
  const middle = [window.x + Math.round(window.width / 2), window.y + Math.round(window.height / 2)]
  const m = (name, work) => step(c.mouse, 'computerUse.mouse', name, work)
  await m('move', async () => same(await c.mouse.move(5, 790), { x: 5, y: 790 }))
  await m('getPosition', async () => same(await c.mouse.getPosition(), { x: 5, y: 790 }))
  await m('click', async () => {
    same(await c.mouse.click(...middle), { x: middle[0], y: middle[1] })
    await until('the terminal has the focus', async () => (await c.display.getWindows()).windows.find((w) => w.title === 'Typing').isActive)
    await rejects(c.mouse.click(5000, 5), 400)
  })
  const k = (name, work) => step(c.keyboard, 'computerUse.keyboard', name, work)
  await k('type', async () => {
    await c.keyboard.type('grüße, 猫 😀')
    await c.keyboard.type(' slowly', 5)
  })
  await k('press', async () => {
    await c.keyboard.press('enter')
    await until('the text', async () => (await run('cat /tmp/typed')) === 'grüße, 猫 😀 slowly')
    await rejects(c.keyboard.press('nosuchkey'), 400)
  })
  await k('hotkey', async () => {
    await c.keyboard.hotkey('Ctrl + D') // ends cat, and so the terminal
    await until('the terminal is gone', async () => !(await c.display.getWindows()).windows.some((w) => w.title === 'Typing'))
    await rejects(c.keyboard.hotkey('ctrl+'), 400)
  })
  await m('drag', async () => same(await c.mouse.drag(600, 300, 700, 400), { x: 700, y: 400 }))
  await m('scroll', async () => { await c.mouse.scroll(700, 400, 'down', 2); await c.mouse.scroll(700, 400, 'up') })

  const p = (name, work) => step(c.screenshot, 'computerUse.screenshot', name, work)
  // Some versions hand the four numbers over in another order, which for this
  // region is the same.
  const region = { x: 200, y: 300, width: 300, height: 200 }
  await p('takeFullScreen', async () => {
    const shot = await c.screenshot.takeFullScreen(true)
    same([inside(shot), shot.cursorPosition], [{ kind: 'png', width: 1280, height: 800 }, { x: 700, y: 400 }])
  })
  await p('takeRegion', async () => same(inside(await c.screenshot.takeRegion(region)), { kind: 'png', width: 300, height: 200 }))
  await p('takeCompressed', async () => {
    const take = (quality) => c.screenshot.takeCompressed({ format: 'jpeg', quality, showCursor: true })
    // The two can be compared when nothing was painted between them.
    for (const end = Date.now() + 60_000; ;) {
      const [fine, coarse, again] = [await take(95), await take(10), await take(95)]
      same([inside(fine).kind, inside(coarse).kind], ['jpeg', 'jpeg'])
      if (fine.screenshot === again.screenshot) {
        assert.ok(coarse.sizeBytes < fine.sizeBytes)
        break
      }
      assert.ok(Date.now() < end, 'the screen never stood still')
    }
    same(inside(await c.screenshot.takeCompressed({ format: 'png', scale: 0.5 })), { kind: 'png', width: 640, height: 400 })
    assert.ok((await c.screenshot.takeCompressed()).sizeBytes)
  })
  await p('takeCompressedRegion', async () => {
    same(inside(await c.screenshot.takeCompressedRegion(region, { scale: 0.5 })), { kind: 'png', width: 150, height: 100 })
    await rejects(c.screenshot.takeCompressedRegion({ ...region, width: 5000 }), 400)
  })

  const r = (name, work) => step(c.recording, 'computerUse.recording', name, work)
  const film = await r('start', async () => {
    const film = await c.recording.start('my film')
    same([film.status, film.filePath.endsWith(film.fileName)], ['recording', true])
    return film
  })
  await r('list', async () => assert.ok((await c.recording.list()).recordings.some((x) => x.id === film?.id)))
  await r('get', async () => { same((await c.recording.get(film.id)).id, film.id); await rejects(c.recording.get('nosuch'), 404) })
  await r('stop', async () => {
    await rejects(c.recording.delete(film.id), 409)
    const done = await c.recording.stop(film.id)
    same([done.status, done.sizeBytes > 0, done.durationSeconds > 0], ['completed', true, true])
  })
  await r('download', async () => {
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'film-')), 'film.mp4')
    await c.recording.download(film.id, file)
    same(fs.readFileSync(file).toString('latin1', 4, 8), 'ftyp')
    has(await run(`ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 "${film.filePath}"`), 'h264,1280,800')
  })
  await r('delete', async () => { await c.recording.delete(film.id); await rejects(c.recording.get(film.id), 404) })

  // A browser with a page of one button and one field.
  const page = '<title>Probe</title><button onclick="document.title=`pressed`">Go on</button><input aria-label=Field oninput="document.title=value">'
  await run(`setsid chromium 'data:text/html,${page}' >/dev/null 2>&1 &`)
  const a = (name, work) => step(c.accessibility, 'computerUse.accessibility', name, work)
  const find = async (q) => (await c.accessibility.findNodes({ scope: 'all', limit: 1, ...q })).matches?.[0]
  const titled = (text) => until(`the title ${text}`, async () => (await c.display.getWindows()).windows.some((w) => w.title.startsWith(text)))
  let button, field
  await a('findNodes', () => until('the page', async () => {
    button = await find({ role: 'button', name: 'go', states: ['showing'] })
    field = await find({ role: 'entry', name: 'Field', nameMatch: 'exact' })
    return button && field
  }))
  await a('getTree', async () => {
    await until('Chromium has the focus', async () => {
      const { root } = await c.accessibility.getTree({ scope: 'focused', maxDepth: 1 })
      return root.role === 'application' && root.name === 'Chromium'
    })
    assert.ok((await c.accessibility.getTree({ scope: 'all', maxDepth: 0 })).root)
  })
  await a('invokeNode', async () => { await c.accessibility.invokeNode(button.id); await titled('pressed'); await rejects(c.accessibility.invokeNode('n'), 400) })
  await a('focusNode', async () => {
    await c.accessibility.focusNode(field.id)
    await c.keyboard.type('typed')
    await titled('typed')
  })
  await a('setNodeValue', async () => { await c.accessibility.setNodeValue(field.id, 'written'); await titled('written') })
  await step(c, 'computerUse', 'stop', async () => {
    await c.stop()
    same((await c.getStatus()).status, 'inactive')
    await rejects(c.screenshot.takeFullScreen(), 503)
  })
  await d.delete(sb)
}
